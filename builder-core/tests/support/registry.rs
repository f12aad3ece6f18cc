//! A registry in this process that misbehaves on demand.
//!
//! Serves what a test puts into it, over plain http or TLS, writes down every request, and breaks in the ways that
//! real registries and networks do. Uses the standard library and rustls alone and nothing of the crate under test, so
//! that unit tests and integration tests can both include it by path.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// Media types of a family: index, manifest, config, layer.
pub(crate) struct Family {
    pub(crate) index: &'static str,
    pub(crate) manifest: &'static str,
    pub(crate) config: &'static str,
    pub(crate) layer: &'static str,
}

/// OCI's media types.
pub(crate) const OCI: Family = Family {
    index: "application/vnd.oci.image.index.v1+json",
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar+gzip",
};

/// Docker's media types.
pub(crate) const DOCKER: Family = Family {
    index: "application/vnd.docker.distribution.manifest.list.v2+json",
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
};

/// One request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    /// `GET /v2/x/tags/list?n=2`.
    pub(crate) line: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
    pub(crate) body: Vec<u8>,
    /// Number of the connection, from 0.
    pub(crate) connection: usize,
}

/// What is asked of a client before it is let in. The token server is at `/token` of each registry.
#[derive(Debug, Clone, Default)]
pub(crate) enum Auth {
    /// Nothing.
    #[default]
    Open,
    /// This name and password.
    Basic(&'static str, &'static str),
    /// A token from `realm`, good for a number of requests. Any registry's tokens are good at any other.
    Bearer { realm: String, uses: usize },
}

/// Whom the token server gives tokens to.
#[derive(Debug, Clone, Default)]
pub(crate) enum TokenFor {
    /// Everyone.
    #[default]
    Anyone,
    /// This name and password.
    User(&'static str, &'static str),
    /// Holders of this refresh token.
    Refresh(&'static str),
}

/// How an answer goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The connection is reset after this many bytes of the body.
    Reset(usize),
    /// The connection is closed properly after this many bytes of the body.
    Short(usize),
    /// No byte comes after this many bytes of the body, until the client gives up.
    Silence(usize),
    /// Another status, headers and body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// `Content-Length` says this; the body is padded or the connection closed to match.
    Length(usize),
    /// A body of the same length with other bytes.
    OtherBytes,
    /// `Range` is not understood.
    NoRange,
    /// `Docker-Content-Digest` says this; `None` leaves the header out.
    DigestHeader(Option<String>),
    /// `Content-Type` says this.
    ContentType(&'static str),
    /// No `Content-Length`: the body ends with the connection.
    Unframed,
    /// The connection is reset after this many bytes of the request's body, which count as received.
    ResetUpload(usize),
    /// The request is served, and its answer lost.
    LostAnswer,
    /// This status, before the body of the request is read.
    Early(u16),
    /// This header is left out.
    Without(&'static str),
    /// The body comes byte by byte, each in a packet of its own.
    Drip,
}

struct Planned {
    part: String,
    times: usize,
    fault: Fault,
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, Vec<u8>>,
    /// By repository, what was uploaded or mounted; blobs of tests are everywhere.
    uploaded: HashSet<(String, String)>,
    /// Bytes of unfinished uploads, by number.
    uploads: BTreeMap<usize, Vec<u8>>,
    started: usize,
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    planned: Vec<Planned>,
    log: Vec<Logged>,
    auth: Auth,
    token_for: TokenFor,
    expires_in: Option<u64>,
    tokens: usize,
    uses: HashMap<String, usize>,
    page: usize,
    connections: usize,
    lists_referrers: bool,
}

impl State {
    /// Is the blob known only in other repositories?
    fn is_hidden(&self, repository: &str, digest: &str) -> bool {
        let mut places = self.uploaded.iter().filter(|(_, uploaded)| uploaded == digest).peekable();
        places.peek().is_some() && !places.any(|(place, _)| place == repository)
    }
}

/// The registry. Stops when dropped.
pub(crate) struct Registry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stopped: Arc<AtomicBool>,
}

impl Registry {
    /// Starts on a free port of 127.0.0.1.
    pub(crate) fn start() -> Self {
        Self::listen(None)
    }

    /// Starts with TLS.
    pub(crate) fn start_tls(config: Arc<rustls::ServerConfig>) -> Self {
        Self::listen(Some(config))
    }

    fn listen(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State { page: usize::MAX, ..State::default() }));
        let stopped = Arc::new(AtomicBool::new(false));
        let registry = Self { address, state: Arc::clone(&state), stopped: Arc::clone(&stopped) };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (tls, state) = (tls.clone(), Arc::clone(&state));
                thread::spawn(move || {
                    let number = {
                        let mut state = state.lock().unwrap();
                        state.connections += 1;
                        state.connections - 1
                    };
                    // A client that goes away is what many tests are about.
                    drop(serve(&stream, tls, &state, number, address));
                });
            }
        });
        registry
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Returns `127.0.0.1:port`.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns the URL of the token server.
    pub(crate) fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// Stores a blob, for every repository; returns its digest.
    pub(crate) fn add_blob(&self, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        self.state().blobs.insert(digest.clone(), bytes.to_vec());
        digest
    }

    /// Stores a manifest under its digest and a tag; returns its digest.
    pub(crate) fn add_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        for name in [tag, &digest] {
            let key = (repository.to_owned(), name.to_owned());
            self.state().manifests.insert(key, (media_type.to_owned(), bytes.to_vec()));
        }
        digest
    }

    /// Stores an image with these layers; returns the digest of its manifest.
    pub(crate) fn add_image(
        &self,
        repository: &str,
        tag: &str,
        family: &Family,
        config: &[u8],
        layers: &[&[u8]],
    ) -> String {
        let descriptor = |media_type: &str, bytes: &[u8]| {
            format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, self.add_blob(bytes), bytes.len())
        };
        let layers: Vec<_> = layers.iter().map(|layer| descriptor(family.layer, layer)).collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
            family.manifest,
            descriptor(family.config, config),
            layers.join(",")
        );
        self.add_manifest(repository, tag, family.manifest, manifest.as_bytes())
    }

    /// Lets the next requests whose line contains `part` fail in this way. The first plan that fits is used up first.
    pub(crate) fn plan(&self, part: &str, times: usize, fault: Fault) {
        self.state().planned.push(Planned { part: part.to_owned(), times, fault });
    }

    /// Lets no more requests fail.
    pub(crate) fn forget_plans(&self) {
        self.state().planned.clear();
    }

    /// Lets the next requests whose line contains `part` be sent to another URL.
    pub(crate) fn redirect(&self, part: &str, times: usize, target: String) {
        self.plan(part, times, Fault::Status(307, vec![("location", target)], String::new()));
    }

    /// Sets what is asked of clients.
    pub(crate) fn set_auth(&self, auth: Auth) {
        self.state().auth = auth;
    }

    /// Sets whom the token server gives tokens to, and what it says about their life in seconds.
    pub(crate) fn set_token_for(&self, who: TokenFor, expires_in: Option<u64>) {
        let mut state = self.state();
        (state.token_for, state.expires_in) = (who, expires_in);
    }

    /// Lets it list what is about a manifest by itself, as registries since distribution-spec 1.1 do.
    pub(crate) fn list_referrers(&self) {
        self.state().lists_referrers = true;
    }

    /// The bytes of a manifest.
    pub(crate) fn manifest(&self, repository: &str, name: &str) -> Option<Vec<u8>> {
        self.state().manifests.get(&(repository.to_owned(), name.to_owned())).map(|(_, bytes)| bytes.clone())
    }

    /// Sets how many tags come on a page.
    pub(crate) fn set_page(&self, page: usize) {
        self.state().page = page;
    }

    /// How many requests came since the log was taken.
    pub(crate) fn requests(&self) -> usize {
        self.state().log.len()
    }

    /// What manifests name but their repository lacks: such an image is broken.
    pub(crate) fn missing(&self) -> Vec<String> {
        let state = self.state();
        let mut missing = Vec::new();
        for ((repository, name), (_, bytes)) in &state.manifests {
            let text = String::from_utf8_lossy(bytes);
            let words: Vec<&str> = text.split('"').collect();
            // What it is based on need not be there.
            let is_base = |at: usize| at >= 2 && words[at - 2] == "org.opencontainers.image.base.digest";
            let named = words.iter().enumerate().filter(|(at, word)| word.starts_with("sha256:") && !is_base(*at));
            for (_, &digest) in named {
                let is_manifest = state.manifests.contains_key(&(repository.clone(), digest.to_owned()));
                let is_blob = state.blobs.contains_key(digest) && !state.is_hidden(repository, digest);
                if !is_manifest && !is_blob {
                    missing.push(format!("{repository}:{name} lacks {digest}"));
                }
            }
        }
        missing
    }

    /// Returns and forgets the requests so far.
    pub(crate) fn take_log(&self) -> Vec<Logged> {
        std::mem::take(&mut self.state().log)
    }

    /// Returns and forgets the lines of the requests so far.
    pub(crate) fn take_lines(&self) -> Vec<String> {
        self.take_log().into_iter().map(|logged| logged.line).collect()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the listener, which then finds that it is over.
        drop(TcpStream::connect(self.address));
    }
}

/// Returns `sha256:…` of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

struct Request {
    method: String,
    target: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Response {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    fn error(status: u16, code: &str) -> Self {
        Self::new(
            status,
            format!(r#"{{"errors":[{{"code":"{code}","message":"{}"}}]}}"#, code.to_lowercase().replace('_', " ")),
        )
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| key != name);
        self
    }

    fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|(key, _)| key != name);
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

fn serve(
    stream: &TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    state: &Mutex<State>,
    connection: usize,
    address: SocketAddr,
) -> io::Result<()> {
    match tls {
        None => converse(&mut BufReader::new(stream), stream, state, connection, address),
        Some(config) => {
            let session = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
            let mut wire = BufReader::new(rustls::StreamOwned::new(session, stream));
            converse(&mut wire, stream, state, connection, address)
        }
    }
}

fn converse<S: Read + Write>(
    wire: &mut BufReader<S>,
    stream: &TcpStream,
    state: &Mutex<State>,
    connection: usize,
    address: SocketAddr,
) -> io::Result<()> {
    loop {
        let mut request = match read_head(wire) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            // What servers say to TLS on a port for plain http.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return wire.get_mut().write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
            }
            Err(error) => return Err(error),
        };
        let line = format!("{} {}", request.method, request.target);
        let refusal = refuse(&mut state.lock().unwrap(), &request);
        // Faults are for those who are let in.
        let fault = if refusal.is_none() { next_fault(&mut state.lock().unwrap(), &line) } else { None };
        let length = request.headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let length = match fault {
            Some(Fault::ResetUpload(n)) => n.min(length),
            Some(Fault::Early(_)) => 0,
            _ => length,
        };
        request.body = vec![0; length];
        wire.read_exact(&mut request.body)?;
        let response = {
            let mut state = state.lock().unwrap();
            state.log.push(Logged {
                line,
                authorization: request.headers.get("authorization").cloned(),
                range: request.headers.get("range").or(request.headers.get("content-range")).cloned(),
                body: request.body.clone(),
                connection,
            });
            refusal.unwrap_or_else(|| answer(&mut state, &request, address, fault.as_ref()))
        };
        match fault {
            Some(Fault::ResetUpload(_) | Fault::LostAnswer) => {
                rustix::net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO))?;
                return Ok(());
            }
            Some(Fault::Early(_)) => {
                write_response(wire, stream, &request, response, None)?;
                // What is still being sent is taken in, or the client would see a reset instead of the answer.
                stream.shutdown(Shutdown::Write)?;
                io::copy(wire, &mut io::sink())?;
                return Ok(());
            }
            fault => {
                if !write_response(wire, stream, &request, response, fault)? {
                    return Ok(());
                }
            }
        }
    }
}

fn next_fault(state: &mut State, line: &str) -> Option<Fault> {
    let planned = state.planned.iter_mut().find(|planned| planned.times > 0 && line.contains(&planned.part))?;
    planned.times -= 1;
    Some(planned.fault.clone())
}

fn read_head(wire: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if wire.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        wire.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    Ok(Some(Request { method, target, headers, body: Vec::new() }))
}

fn answer(state: &mut State, request: &Request, address: SocketAddr, fault: Option<&Fault>) -> Response {
    if let Some(Fault::Status(status, headers, body)) = fault {
        let response = Response::new(*status, body.as_bytes());
        return headers.iter().fold(response, |response, (name, value)| response.header(name, value));
    }
    if let Some(Fault::Early(status)) = fault {
        return Response::error(*status, "TOO_LARGE");
    }
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    if path == "/token" {
        return give_token(state, request);
    }
    let Some(rest) = path.strip_prefix("/v2/") else {
        // What a CDN would serve.
        return blob(state, request, path.trim_start_matches('/'), fault);
    };
    if rest.is_empty() {
        return Response::new(200, "{}");
    }
    if let Some((repository, upload_id)) = rest.split_once("/blobs/uploads/") {
        let response = upload(state, request, (repository, upload_id, query), fault);
        return match fault {
            Some(Fault::Without(name)) => response.without(name),
            _ => response,
        };
    }
    let (head, last) = rest.rsplit_once('/').unwrap_or(("", rest));
    let (repository, kind) = head.rsplit_once('/').unwrap_or(("", head));
    match kind {
        "blobs" if state.is_hidden(repository, last) => Response::error(404, "BLOB_UNKNOWN"),
        "blobs" => blob(state, request, last, fault),
        "manifests" if request.method == "PUT" => put_manifest(state, request, repository, last),
        "manifests" => manifest(state, repository, last, fault),
        "tags" => tags(state, repository, query, address),
        _ => Response::error(404, "NAME_UNKNOWN"),
    }
}

fn give_token(state: &mut State, request: &Request) -> Response {
    let basic = request.headers.get("authorization").cloned().unwrap_or_default();
    let form = String::from_utf8_lossy(&request.body).into_owned();
    let welcome = match state.token_for {
        TokenFor::Anyone => true,
        TokenFor::User(name, password) => basic == format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))),
        TokenFor::Refresh(token) => {
            request.method == "POST" && form.split('&').any(|pair| pair == format!("refresh_token={token}"))
        }
    };
    if !welcome {
        return Response::new(401, r#"{"details":"incorrect username or password"}"#);
    }
    state.tokens += 1;
    let life = state.expires_in.map(|seconds| format!(r#","expires_in":{seconds}"#)).unwrap_or_default();
    let key = if request.method == "POST" { "access_token" } else { "token" };
    Response::new(200, format!(r#"{{"{key}":"tok-{}"{life}}}"#, state.tokens))
}

fn refuse(state: &mut State, request: &Request) -> Option<Response> {
    let path = request.target.split('?').next().unwrap_or_default();
    if path == "/token" {
        return None;
    }
    let shown = request.headers.get("authorization").cloned().unwrap_or_default();
    let question = match state.auth.clone() {
        Auth::Open => return None,
        Auth::Basic(name, password) => {
            if shown == format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))) {
                return None;
            }
            "Basic realm=\"here\"".to_owned()
        }
        Auth::Bearer { realm, uses } => {
            if let Some(token) = shown.strip_prefix("Bearer ").filter(|token| token.starts_with("tok-")) {
                let used = state.uses.entry(token.to_owned()).or_default();
                *used += 1;
                if *used <= uses {
                    return None;
                }
            }
            let repository = path.strip_prefix("/v2/").unwrap_or_default();
            let actions = if matches!(request.method.as_str(), "GET" | "HEAD") { "pull" } else { "pull,push" };
            let repository = ["/manifests/", "/blobs/", "/tags/"]
                .iter()
                .find_map(|kind| Some(repository.split_once(kind)?.0))
                .map(|repository| format!(",scope=\"repository:{repository}:{actions}\""))
                .unwrap_or_default();
            format!("Bearer realm=\"{realm}\",service=\"test\"{repository}")
        }
    };
    Some(Response::error(401, "UNAUTHORIZED").header("www-authenticate", question))
}

fn manifest(state: &State, repository: &str, name: &str, fault: Option<&Fault>) -> Response {
    let Some((media_type, bytes)) = state.manifests.get(&(repository.to_owned(), name.to_owned())) else {
        return Response::error(404, "MANIFEST_UNKNOWN");
    };
    let response = Response::new(200, bytes.clone());
    let response = match fault {
        Some(Fault::DigestHeader(None)) => response,
        Some(Fault::DigestHeader(Some(digest))) => response.header("docker-content-digest", digest),
        _ => response.header("docker-content-digest", sha256(bytes)),
    };
    match fault {
        Some(Fault::ContentType(media_type)) => response.header("content-type", *media_type),
        _ => response.header("content-type", media_type),
    }
}

fn blob(state: &State, request: &Request, digest: &str, fault: Option<&Fault>) -> Response {
    let Some(bytes) = state.blobs.get(digest) else { return Response::error(404, "BLOB_UNKNOWN") };
    let range = request.headers.get("range").filter(|_| !matches!(fault, Some(Fault::NoRange)));
    let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match start {
        Some(start) if start < bytes.len() => {
            let part = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            Response::new(206, &bytes[start..]).header("content-range", part)
        }
        _ => Response::new(200, bytes.clone()),
    }
}

/// One request of an upload: `id` is empty for the first.
fn upload(
    state: &mut State,
    request: &Request,
    (repository, id, query): (&str, &str, &str),
    fault: Option<&Fault>,
) -> Response {
    let param = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.replace("%3A", ":"))
    };
    if request.method == "POST" {
        if let (Some(digest), Some(from)) = (param("mount"), param("from"))
            && state.blobs.contains_key(&digest)
            && !state.is_hidden(&from, &digest)
        {
            state.uploaded.insert((repository.to_owned(), digest));
            return Response::new(201, "");
        }
        state.started += 1;
        state.uploads.insert(state.started, Vec::new());
        return upload_state(state, repository, state.started, 202);
    }
    let number = id.parse().unwrap_or(0);
    let Some(received) = state.uploads.get_mut(&number) else { return Response::error(404, "BLOB_UPLOAD_UNKNOWN") };
    if let Some(range) = request.headers.get("content-range")
        && range.split('-').next().and_then(|first| first.parse().ok()) != Some(received.len())
    {
        return upload_state(state, repository, number, 416);
    }
    received.extend_from_slice(&request.body);
    let is_cut = matches!(fault, Some(Fault::ResetUpload(_)));
    match request.method.as_str() {
        "GET" => upload_state(state, repository, number, 204),
        "DELETE" => {
            state.uploads.remove(&number);
            Response::new(204, "")
        }
        "PUT" if !is_cut => {
            let bytes = state.uploads.remove(&number).unwrap_or_default();
            if param("digest") != Some(sha256(&bytes)) {
                return Response::error(400, "DIGEST_INVALID");
            }
            let digest = sha256(&bytes);
            state.uploaded.insert((repository.to_owned(), digest.clone()));
            state.blobs.insert(digest, bytes);
            Response::new(201, "")
        }
        _ => upload_state(state, repository, number, 202),
    }
}

fn upload_state(state: &State, repository: &str, number: usize, status: u16) -> Response {
    let last = state.uploads.get(&number).map_or(0, Vec::len).saturating_sub(1);
    Response::new(status, "")
        .header("location", format!("/v2/{repository}/blobs/uploads/{number}?state=a%2Fb"))
        .header("range", format!("0-{last}"))
}

fn put_manifest(state: &mut State, request: &Request, repository: &str, name: &str) -> Response {
    let digest = sha256(&request.body);
    let media_type = request.headers.get("content-type").cloned().unwrap_or_default();
    for name in [name, &digest] {
        state.manifests.insert((repository.to_owned(), name.to_owned()), (media_type.clone(), request.body.clone()));
    }
    let response = Response::new(201, "").header("docker-content-digest", digest);
    let text = String::from_utf8_lossy(&request.body);
    let subject =
        text.split_once(r#""subject":{"#).and_then(|(_, rest)| rest.split('"').find(|s| s.starts_with("sha256:")));
    match subject.filter(|_| state.lists_referrers) {
        Some(subject) => response.header("oci-subject", subject),
        None => response,
    }
}

fn tags(state: &State, repository: &str, query: &str, address: SocketAddr) -> Response {
    let last = query.split('&').find_map(|pair| pair.strip_prefix("last=")).unwrap_or_default();
    let all = state.manifests.keys().filter(|(name, tag)| name == repository && !tag.contains(':'));
    let tags: Vec<_> = all.map(|(_, tag)| format!("{tag:?}")).filter(|tag| tag.trim_matches('"') > last).collect();
    let page = &tags[..tags.len().min(state.page)];
    let response = Response::new(200, format!(r#"{{"name":{repository:?},"tags":[{}]}}"#, page.join(",")));
    match page.last().filter(|_| page.len() < tags.len()) {
        None => response,
        Some(last) => {
            let last = last.trim_matches('"');
            // An absolute link, as some registries send it, and with a hostile host.
            let host = if last.len() > 1 { address.to_string() } else { "evil.invalid".to_owned() };
            response.header("link", format!("<http://{host}/v2/{repository}/tags/list?last={last}&n=1>; rel=\"next\""))
        }
    }
}

/// Returns whether the connection can serve another request.
fn write_response<S: Read + Write>(
    wire: &mut BufReader<S>,
    stream: &TcpStream,
    request: &Request,
    mut response: Response,
    fault: Option<Fault>,
) -> io::Result<bool> {
    let mut length = response.body.len();
    let mut sent = length;
    let mut whole = true;
    match fault {
        Some(Fault::Reset(n) | Fault::Short(n) | Fault::Silence(n)) => {
            sent = n.min(length);
            whole = false;
        }
        Some(Fault::Length(n)) => {
            length = n;
            whole = n <= sent;
            sent = sent.min(n);
        }
        Some(Fault::OtherBytes) => response.body.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1)),
        Some(Fault::Unframed) => whole = false,
        _ => {}
    }
    let mut head = format!("HTTP/1.1 {} Status\r\n", response.status);
    if !matches!(fault, Some(Fault::Unframed)) {
        write!(head, "content-length: {length}\r\n").expect("a string takes all");
    }
    for (name, value) in &response.headers {
        write!(head, "{name}: {value}\r\n").expect("a string takes all");
    }
    head.push_str("\r\n");
    let out = wire.get_mut();
    out.write_all(head.as_bytes())?;
    if matches!(fault, Some(Fault::Drip)) {
        stream.set_nodelay(true)?;
        for byte in &response.body {
            out.write_all(&[*byte])?;
            out.flush()?;
        }
    } else if request.method != "HEAD" {
        out.write_all(&response.body[..sent])?;
    }
    out.flush()?;
    match fault {
        Some(Fault::Reset(_)) => rustix::net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO))?,
        Some(Fault::Silence(_)) => {
            // Until the client hangs up.
            io::copy(wire, &mut io::sink())?;
        }
        _ => {}
    }
    if !whole && !matches!(fault, Some(Fault::Reset(_))) {
        stream.shutdown(Shutdown::Both)?;
    }
    Ok(whole)
}
