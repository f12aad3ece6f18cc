//! Who is believed to be a registry: certificates, and what to say when they do not hold.
//!
//! Reads certificate files named by the configuration or, failing that, the system's bundle from the places where
//! distributions keep it; never the environment. Without any bundle (an empty root file system) Mozilla's roots, which
//! are compiled in, take its place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, InvalidMessage, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::config::{ClientIdentity, HostRule, Roots, Secret, VerifyTls};
use super::error::Error;
use super::reference::image_host;

/// Where distributions keep their bundle, most common first.
const SYSTEM_BUNDLES: [&str; 7] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/certs/ca-bundle.crt",
];

/// What is special about TLS with one host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HostTls {
    any_certificate: bool,
    extra_roots: Vec<String>,
    identity: Option<ClientIdentity>,
}

impl HostTls {
    /// Collects what `rule` and the directories `cert_dirs` say about `host`.
    pub(super) fn load(host: &str, rule: Option<&HostRule>, cert_dirs: &[PathBuf]) -> Result<Self, Error> {
        let mut tls = Self::default();
        if let Some(rule) = rule {
            tls.any_certificate = rule.verify == VerifyTls::No;
            tls.extra_roots.clone_from(&rule.extra_roots);
            tls.identity.clone_from(&rule.identity);
        }
        for dir in cert_dirs {
            tls.load_dir(&dir.join(image_host(host)))?;
        }
        Ok(tls)
    }

    /// The same with any certificate.
    pub(super) fn unverified(self) -> Self {
        Self { any_certificate: true, ..self }
    }

    /// `*.crt` are authorities, `X.cert` with `X.key` is the client's own.
    fn load_dir(&mut self, dir: &Path) -> Result<(), Error> {
        let mut paths = match fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries.into_iter().map(|entry| entry.path()).collect::<Vec<_>>(),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(source) => return Err(unreadable(dir, source)),
        };
        paths.sort();
        let read = |path: &Path| fs::read_to_string(path).map_err(|source| unreadable(path, source));
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self.extra_roots.push(read(&path)?),
                Some("cert") if self.identity.is_none() => {
                    let key = Secret::new(read(&path.with_extension("key"))?);
                    self.identity = Some(ClientIdentity { certificates: read(&path)?, key });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    Error::Config { what: format!("read certificates from {}", path.display()), source: source.into() }
}

/// Builds the TLS settings for hosts of which `host` is true.
pub(super) fn client_config(roots: &Roots, host: HostTls) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::Config { what: "set up TLS".to_owned(), source: source.into() })?;
    let builder = if host.any_certificate {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        builder.with_root_certificates(root_store(roots, &host.extra_roots)?)
    };
    let mut config = match host.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates(&identity.certificates, "the client certificate")?;
            let bad_key = |source: Box<dyn std::error::Error + Send + Sync>| Error::Config {
                what: "use the client certificate and its key".to_owned(),
                source,
            };
            let key = PrivateKeyDer::from_pem_slice(identity.key.reveal().as_bytes()).map_err(|e| bad_key(e.into()))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| bad_key(e.into()))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn root_store(roots: &Roots, host_extra: &[String]) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    if roots.file.is_some() || !roots.dirs.is_empty() {
        for path in roots.file.iter().chain(&roots.dirs) {
            add_bundle(&mut store, path)?;
        }
    } else if !SYSTEM_BUNDLES.iter().any(|path| add_bundle(&mut store, Path::new(path)).is_ok()) {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for pem in roots.extra.iter().chain(host_extra) {
        for certificate in certificates(pem, "an extra CA certificate")? {
            store.add(certificate).map_err(|source| Error::Config {
                what: "use an extra CA certificate".to_owned(),
                source: source.into(),
            })?;
        }
    }
    Ok(store)
}

/// Adds what can be read at `path`, a file or a directory. Bundles carry certificates that rustls does not take; the others
/// count, and there must be one.
fn add_bundle(store: &mut RootCertStore, path: &Path) -> Result<(), Error> {
    let (file, dir) = if path.is_dir() { (None, Some(path)) } else { (Some(path), None) };
    let found = rustls_native_certs::load_certs_from_paths(file, dir);
    if store.add_parsable_certificates(found.certs).0 > 0 {
        return Ok(());
    }
    let source = found.errors.into_iter().next().map_or_else(|| "no certificate in PEM form".into(), Into::into);
    Err(Error::Config { what: format!("read certificates from {}", path.display()), source })
}

fn certificates(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let config =
        |source: Box<dyn std::error::Error + Send + Sync>| Error::Config { what: format!("read {what}"), source };
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|e| config(e.into()))?;
    if found.is_empty() { Err(config("no certificate in PEM form".into())) } else { Ok(found) }
}

/// Believes every certificate; the caller has asked for that.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Says what would make the connection work.
pub(super) fn hint(failure: &rustls::Error) -> Option<&'static str> {
    match failure {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Some("the server seems to speak plain http: allow that for this host")
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => Some(
            "its certificate comes from an authority that is not known here: add that authority's certificate for this host",
        ),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some("its certificate is for another name: use a name that stands in the certificate"),
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            Some("its certificate has expired, or the clock of this machine is wrong")
        }
        // webpki's error has no public name in rustls.
        rustls::Error::InvalidCertificate(CertificateError::Other(other))
            if format!("{other:?}").contains("CaUsedAsEndEntity") =>
        {
            Some(
                "its certificate is that of an authority (CA:TRUE), as self-signed ones often are: make one with \
                 basicConstraints=CA:FALSE, or sign the server's certificate with an authority of your own",
            )
        }
        _ => None,
    }
}
