//! Numbers and strings of protocol 0, which are written as Python's source would have them.

use super::Fault;

/// The value of an opcode `INT` or `LONG`; `None` if it does not fit.
pub(super) fn integer(line: &[u8]) -> Result<Option<i64>, Fault> {
    let text = std::str::from_utf8(line).map_err(|_| Fault::Text("an integer"))?;
    let digits = text.trim().trim_end_matches('L');
    let unsigned = digits.strip_prefix(['-', '+']).unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::Text("an integer"));
    }
    Ok(digits.parse().ok())
}

/// The value of `LONG1` or `LONG4`: two's complement, little-endian; `None` if it does not fit.
pub(super) fn little_endian_integer(bytes: &[u8]) -> Option<i64> {
    let fill = if bytes.last().is_some_and(|&byte| byte >= 0x80) { 0xff } else { 0 };
    let mut value = [fill; 8];
    let (low, high) = bytes.split_at(bytes.len().min(8));
    value[..low.len()].copy_from_slice(low);
    let number = i64::from_le_bytes(value);
    let fits = high.iter().all(|&byte| byte == fill) && (number < 0) == (fill == 0xff);
    fits.then_some(number)
}

/// The bytes of an opcode `STRING`: in quotes, with Python's escapes.
pub(super) fn unquoted(line: &[u8]) -> Result<Vec<u8>, Fault> {
    const INVALID: Fault = Fault::Text("a string in quotes");
    let [open @ (b'"' | b'\''), inner @ .., close] = line.trim_ascii() else { return Err(INVALID) };
    if open != close {
        return Err(INVALID);
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'x') => hexadecimal(&mut rest, 2).and_then(|code| u8::try_from(code).ok()).ok_or(INVALID)?,
            Some(same @ (b'\\' | b'\'' | b'"')) => same,
            _ => return Err(INVALID),
        });
    }
    Ok(bytes)
}

/// The text of an opcode `UNICODE`: Latin-1 with the escapes `\uXXXX` and `\UXXXXXXXX`.
pub(super) fn raw_unicode(line: &[u8]) -> Result<String, Fault> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line.iter().copied();
    while let Some(byte) = rest.next() {
        let mut after = rest.clone();
        let digits = match (byte, after.next()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(char::from(byte));
                continue;
            }
        };
        let code = hexadecimal(&mut after, digits).and_then(char::from_u32);
        text.push(code.ok_or(Fault::Text("an escaped character"))?);
        rest = after;
    }
    Ok(text)
}

fn hexadecimal(bytes: &mut impl Iterator<Item = u8>, digits: usize) -> Option<u32> {
    (0..digits).try_fold(0, |code, _| Some(code * 16 + char::from(bytes.next()?).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_python_writes_them() {
        assert_eq!(integer(b"-12L").unwrap(), Some(-12));
        assert_eq!(integer(b"99999999999999999999").unwrap(), None);
        for wrong in [&b""[..], b"L", b"1e3", b"0x10", b"\xff"] {
            assert!(integer(wrong).is_err(), "{wrong:?}");
        }
        let cases: [(&[u8], Option<i64>); 7] = [
            (b"", Some(0)),
            (b"\xff\x00", Some(255)),
            (b"\xff", Some(-1)),
            (b"\x00\x00\x00\x00\x00\x00\x00\x80", Some(i64::MIN)),
            (b"\x00\x00\x00\x00\x00\x00\x00\x80\x00", None),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x01\x00\x00\x00\x00\x00\x00\x00\x01", None),
        ];
        for (bytes, value) in cases {
            assert_eq!(little_endian_integer(bytes), value, "{bytes:?}");
        }
    }

    #[test]
    fn strings_are_unescaped() {
        assert_eq!(unquoted(br"'a\x00\n\'b\\'").unwrap(), b"a\0\n'b\\");
        assert_eq!(raw_unicode(b"a\xe9\\u263a\\n").unwrap(), "aé☺\\n");
        for wrong in [&b"'a"[..], b"a'", b"'", br"'\x0'", br"'\q'"] {
            assert!(unquoted(wrong).is_err(), "{wrong:?}");
        }
        assert!(raw_unicode(br"\ud800").is_err(), "half a surrogate pair");
        assert!(raw_unicode(br"\u12").is_err());
    }
}
