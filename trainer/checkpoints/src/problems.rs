//! Differences between a file's network and its architecture.

use std::fmt;

use crate::allow::Allow;

/// Names that are not as the architecture has them, as the file calls them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// Tensors that the network needs and the file lacks.
    pub missing: Vec<String>,
    /// Tensors that are there and belong neither to the network nor to the layout.
    pub unexpected: Vec<String>,
    /// Tensors of another shape or type, with what was found and expected.
    pub mismatched: Vec<(String, String)>,
}

impl Problems {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }

    /// The problems without those whose names are allowed.
    #[must_use]
    pub fn without(&self, allow: &Allow) -> Self {
        let left = |names: &[String]| names.iter().filter(|name| !allow.allows(name)).cloned().collect();
        Self {
            missing: left(&self.missing),
            unexpected: left(&self.unexpected),
            mismatched: self.mismatched.iter().filter(|(name, _)| !allow.allows(name)).cloned().collect(),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut groups = Vec::new();
        for (what, names) in [("missing", &self.missing), ("unexpected", &self.unexpected)] {
            if !names.is_empty() {
                groups.push(format!("{what} ({}): {}", names.len(), names.join(", ")));
            }
        }
        if !self.mismatched.is_empty() {
            let names: Vec<_> = self.mismatched.iter().map(|(name, how)| format!("{name} is {how}")).collect();
            groups.push(format!("of another form ({}): {}", names.len(), names.join(", ")));
        }
        f.write_str(&groups.join("; "))
    }
}
