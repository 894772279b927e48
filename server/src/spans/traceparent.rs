//! Which span a request belongs to, as the W3C's Trace Context has it.

use std::fmt;

/// The span of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace that the caller's span is a part of; not zero.
    pub trace_id: u128,
    /// The caller's span; not zero.
    pub span_id: u64,
    /// Whether the caller keeps the trace.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads the value of the header. A value that breaks the rules is to be ignored: a request is
    /// not worse for it.
    pub fn read(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.split('-');
        let version = hexadecimal(parts.next()?, 2)?;
        let trace_id = hexadecimal(parts.next()?, 32)?;
        let span_id = hexadecimal(parts.next()?, 16)?;
        let flags = hexadecimal(parts.next()?, 2)?;
        // Later versions may say more; this one does not.
        let is_version = version != 0xff && (version != 0 || parts.next().is_none());
        let span_id = u64::try_from(span_id).ok()?;
        (is_version && trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

/// As the header has it.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

/// Exactly so many digits, in lower case.
fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    let is_lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == digits && text.bytes().all(is_lower)).then(|| u128::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn reads_what_the_standard_shows() {
        let parent = TraceParent::read(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(parent.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((parent.span_id, parent.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(parent.to_string(), EXAMPLE);
        let later = EXAMPLE.replacen("00", "01", 1) + "-something-more";
        assert_eq!(TraceParent::read(later.as_bytes()), Some(parent));
    }

    #[test]
    fn ignores_what_breaks_the_rules() {
        let wrong = [
            "",
            "00",
            &EXAMPLE.replacen("00", "ff", 1),
            &EXAMPLE.to_uppercase(),
            &format!("{EXAMPLE}-more"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ];
        for text in wrong {
            assert_eq!(TraceParent::read(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_header_is_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            TraceParent::read(&bytes);
        }

        #[test]
        fn what_is_written_is_read(trace_id in 1..u128::MAX, span_id in 1..u64::MAX, sampled: bool) {
            let parent = TraceParent { trace_id, span_id, sampled };
            prop_assert_eq!(TraceParent::read(parent.to_string().as_bytes()), Some(parent));
        }
    }
}
