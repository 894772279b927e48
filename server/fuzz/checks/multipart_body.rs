//! Forms. The input: a byte that says how long the pieces are, the content type up to a newline, the body.

/// Runs one input.
pub(crate) fn check(input: &[u8]) {
    let Some((piece_bytes, input)) = input.split_first() else { return };
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (content_type, body) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    super::body::check(content_type, body, usize::from(*piece_bytes));
}
