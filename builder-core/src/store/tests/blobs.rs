//! Writing and reading blobs.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use super::{names, new_store};
use crate::digest::Digest;
use crate::store::Error;

fn session_files(store: &crate::store::Store) -> Vec<String> {
    let sessions = names(&store.path().join("tmp"));
    assert_eq!(sessions.len(), 1);
    names(&store.path().join("tmp").join(&sessions[0]))
}

#[test]
fn blobs_come_back_under_their_digest() {
    let (_dir, store) = new_store();
    let digest = Digest::of(b"hello");
    assert!(!store.has_blob(&digest).unwrap());
    let mut writer = store.blob_writer().unwrap();
    writer.write_all(b"hel").unwrap();
    writer.write_all(b"lo").unwrap();
    assert!(!store.has_blob(&digest).unwrap(), "nothing is there before the commit");
    assert_eq!(writer.commit().unwrap(), (digest, 5));
    assert_eq!(store.blob_size(&digest).unwrap(), Some(5));
    assert_eq!(store.read_blob(&digest, 5).unwrap(), b"hello");
    let mut text = String::new();
    store.open_blob(&digest).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert_eq!(store.put_blob(b"hello").unwrap(), digest);
    assert_eq!(store.put_blob(b"").unwrap(), Digest::of(b""));
    assert_eq!(store.blob_size(&Digest::of(b"")).unwrap(), Some(0));
    assert_eq!(session_files(&store), ["session"], "no temporary file stays");
}

#[test]
fn what_is_not_expected_is_dropped() {
    let (_dir, store) = new_store();
    let write = |bytes: &[u8]| {
        let mut writer = store.blob_writer().unwrap();
        writer.write_all(bytes).unwrap();
        writer
    };
    let digest = Digest::of(b"good");
    let error = write(b"goo").commit_expected(digest, 4).unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { expected: 4, found: 3, .. }), "{error}");
    let error = write(b"evil").commit_expected(digest, 4).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    drop(write(b"unfinished"));
    assert!(names(&store.path().join("blobs/sha256")).is_empty());
    assert_eq!(session_files(&store), ["session"]);
    write(b"good").commit_expected(digest, 4).unwrap();
    assert!(store.has_blob(&digest).unwrap());
}

#[test]
fn reading_verifies_and_is_bounded() {
    let (_dir, store) = new_store();
    let digest = store.put_blob(b"12345678").unwrap();
    assert!(matches!(store.read_blob(&digest, 7), Err(Error::BlobTooLarge { size: 8, limit: 7, .. })));
    fs::write(store.blob_path(&digest), b"12345679").unwrap();
    assert!(matches!(store.read_blob(&digest, 8), Err(Error::DigestMismatch { .. })));
    assert!(matches!(store.read_blob(&Digest::of(b"no"), 8), Err(Error::BlobMissing { .. })));
}

#[test]
fn a_short_blob_is_replaced_by_a_whole_one() {
    let (_dir, store) = new_store();
    let digest = store.put_blob(b"12345678").unwrap();
    fs::write(store.blob_path(&digest), b"").unwrap();
    assert_eq!(store.put_blob(b"12345678").unwrap(), digest);
    assert_eq!(store.read_blob(&digest, 8).unwrap(), b"12345678");
}

#[test]
fn flushed_blobs_are_read_only() {
    let (_dir, store) = new_store();
    let mode = |digest| fs::metadata(store.blob_path(digest)).unwrap().permissions().mode() & 0o777;
    let digest = store.put_blob(b"x").unwrap();
    assert_ne!(mode(&digest) & 0o200, 0);
    store.sync().unwrap();
    assert_eq!(mode(&digest), 0o444);
    // A blob that someone else has written and not yet flushed is flushed by whoever relies on it.
    let late = super::other(&store).put_blob(b"y").unwrap();
    assert!(store.has_blob(&late).unwrap());
    store.sync().unwrap();
    assert_eq!(mode(&late), 0o444);
}
