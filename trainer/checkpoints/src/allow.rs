//! Names that may be missing, unexpected or of another shape.

/// Patterns of names; `*` stands for any characters, also none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow(Vec<String>);

impl Allow {
    /// Nothing is allowed.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Names that match any of these patterns.
    pub fn patterns(patterns: impl IntoIterator<Item = String>) -> Self {
        Self(patterns.into_iter().collect())
    }

    /// Returns whether a name is allowed.
    pub fn allows(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, name))
    }
}

/// Returns whether the whole `name` matches `pattern`.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name) in [("fc.*", "fc.weight"), ("*", ""), ("*.bias", "a.bias"), ("a*b*c", "a1b2bc"), ("a", "a")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("fc.*", "xfc.weight"), ("fc", "fc.weight"), ("a*a", "a"), ("a*b*c", "acb"), ("", "a")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(!Allow::nothing().allows("a"));
    }
}
