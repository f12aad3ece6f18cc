//! What a build can be given.

use super::*;

const DOCKERFILE: &str = "\
# VERSION of the compiler
ARG VERSION=1
ARG UNUSED
ARG IMAGE=golang:${VERSION}
# build compiles
FROM ${IMAGE} AS build
# MODE is how
ARG MODE=fast
ARG VERSION
RUN --mount=type=secret,id=token,required --mount=type=cache,target=/c make
FROM scratch AS other
ARG NEVER
FROM scratch AS release
ARG TARGETARCH
RUN --mount=type=ssh --mount=type=secret,id=token --mount=type=bind,from=build,target=/b x
";

#[test]
fn outline_of_the_target_and_what_it_needs() {
    let mut request = request(DOCKERFILE);
    request.build_args = vec![("MODE".to_owned(), "slow".to_owned())];
    let (outline, source) = outline(&request, None).unwrap();
    assert_eq!(
        outline.to_text(),
        "\
TARGET:   release

BUILD ARG   VALUE      DESCRIPTION
VERSION     1          of the compiler
IMAGE       golang:1
MODE        slow       is how

SECRET   REQUIRED
token    true

SSH       REQUIRED
default

CACHE
/c
"
    );
    let json = outline.to_json(&source);
    assert_eq!(json["name"], "release");
    let location = serde_json::json!({"ranges": [{"start": {"line": 8}, "end": {"line": 8}}]});
    let arg = serde_json::json!({"name": "MODE", "description": "is how", "value": "slow", "location": location});
    assert_eq!(json["args"][2], arg);
    assert_eq!(json["secrets"][0]["required"], true);
    assert_eq!(json["ssh"][0].get("required"), None, "what is false is left out");
    request.target = Some("other".to_owned());
    assert_eq!(super::super::outline(&request, None).unwrap().0.args.len(), 1);
    request.target = Some("nope".to_owned());
    assert!(super::super::outline(&request, None).unwrap_err().render().contains("stages are"));
}

#[test]
fn targets_in_order() {
    let (targets, source) = targets(&request(DOCKERFILE)).unwrap();
    assert_eq!(
        Target::to_text(&targets),
        "\
TARGET              DESCRIPTION
build               compiles
other
release (default)
"
    );
    let json = Target::to_json(&targets, &source);
    assert_eq!(json["targets"][0]["base"], "${IMAGE}");
    assert_eq!(json["targets"][2]["default"], true);
    assert_eq!(json["sources"].as_array().map(Vec::len), Some(1));
    assert!(super::super::targets(&request("FRM x\n")).unwrap_err().render().contains("did you mean FROM"));
}
