//! Bodies of the Open Inference Protocol. The input: two bytes that say how long the JSON is, or, if all their bits are
//! set, that it is all; the body.

use bytes::Bytes;
use densecl_server::http::fuzzing::{InferenceRequest, parse_inference};

/// Runs one input.
pub(crate) fn check(input: &[u8]) {
    let Some((length, body)) = input.split_first_chunk() else { return };
    let length = match u16::from_le_bytes(*length) {
        u16::MAX => None,
        length => Some(usize::from(length)),
    };
    match parse_inference(&Bytes::copy_from_slice(body), length) {
        Ok(request) => check_request(&request, body.len()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn check_request(request: &InferenceRequest, body_bytes: usize) {
    let images = &request.images;
    assert!(images.count > 0 && images.height > 0 && images.width > 0);
    let expected = [images.count, images.height, images.width, 3].into_iter().try_fold(1_u64, u64::checked_mul);
    assert_eq!(Some(images.pixels.len() as u64), expected, "as many as the shape says");
    assert!(images.pixels.len() <= body_bytes, "nothing is made up");
    assert!(request.id.as_ref().is_none_or(|id| id.len() <= 1024));
    if let Some(outputs) = &request.outputs {
        let mut names: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert!(!outputs.is_empty() && names.len() == outputs.len(), "each once");
    }
}
