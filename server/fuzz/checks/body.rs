//! A body, whatever it is and however it is split, is read or refused, with nothing made up.

use std::time::Duration;

use bytes::Bytes;
use densecl_server::config::RequestLimits;
use densecl_server::http::fuzzing::{ReadBody, read_body};
use densecl_server::http::fuzzing::{RequestError, ToProblem as _};

/// Small ones, so that a fuzzer gets beyond them.
const LIMITS: RequestLimits = RequestLimits {
    max_side_px: 64,
    max_body_bytes: 16 << 10,
    max_pixels: 1 << 16,
    max_response_bytes: 1 << 20,
    max_images: 4,
    max_points: 10,
    timeout: Duration::from_secs(10),
    max_in_flight: 1,
    memory_bytes: 1 << 20,
    body_timeout: Duration::from_secs(10),
};

/// Reads `body`, whole and in pieces of `piece_bytes`.
pub(crate) fn check(content_type: &[u8], body: &[u8], piece_bytes: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let read = |pieces| runtime.block_on(read_body(&LIMITS, content_type, pieces));
    let whole = read(vec![Bytes::copy_from_slice(body)]);
    let pieces = body.chunks(piece_bytes.max(1)).map(Bytes::copy_from_slice).collect();
    let split = read(pieces);
    match (&whole, &split) {
        (Ok(whole), Ok(split)) => {
            assert_eq!(whole, split, "the same, however it comes");
            check_read(whole, body.len());
        }
        (Err(whole), Err(split)) => {
            check_refusal(whole);
            check_refusal(split);
        }
        // Of a body that is too long and wrong as well, either may be said; never that it is fine.
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => panic!("how it comes decides: {error}"),
    }
}

fn check_read(read: &ReadBody, body_bytes: usize) {
    let images: Vec<&Bytes> = read.images.iter().flatten().collect();
    assert!(!read.images[0].is_empty() && read.images[1].len() <= 1, "as many as each field may have");
    assert!(images.len() <= LIMITS.max_images);
    assert!(images.iter().all(|image| !image.is_empty()));
    let parameters: usize = read.parameters.iter().map(|(name, value)| name.len() + value.len()).sum();
    // Nothing in JSON is shorter than what it stands for, but a byte that is written as one.
    assert!(images.iter().map(|image| image.len()).sum::<usize>() + parameters <= body_bytes);
}

fn check_refusal(error: &RequestError) {
    let problem = error.problem();
    assert!((400..500).contains(&problem.status), "{error}");
}
