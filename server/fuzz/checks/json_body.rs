//! JSON objects. The input: a byte that says how long the pieces are, the body.

/// Runs one input.
pub(crate) fn check(input: &[u8]) {
    let Some((piece_bytes, body)) = input.split_first() else { return };
    super::body::check(b"application/json", body, usize::from(*piece_bytes));
}
