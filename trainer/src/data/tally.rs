//! Counts of what is not used, by reason.

use std::collections::BTreeMap;
use std::fmt;

/// Numbers by reason, each with the first example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally<R> {
    by_reason: BTreeMap<R, Counted>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted {
    count: u64,
    first: String,
}

impl<R> Default for Tally<R> {
    fn default() -> Self {
        Self { by_reason: BTreeMap::new() }
    }
}

impl<R: Copy + Ord> Tally<R> {
    /// Counts one more; the first of a reason is its example.
    pub fn note(&mut self, reason: R, example: impl fmt::Display) {
        let counted = self.by_reason.entry(reason).or_insert_with(|| Counted { count: 0, first: example.to_string() });
        counted.count += 1;
    }

    /// Adds the numbers of another tally.
    pub fn merge(&mut self, other: &Self) {
        for (reason, Counted { count, first }) in &other.by_reason {
            let counted = self.by_reason.entry(*reason).or_insert_with(|| Counted { count: 0, first: first.clone() });
            counted.count += count;
        }
    }

    /// Number of a reason.
    pub fn count(&self, reason: R) -> u64 {
        self.by_reason.get(&reason).map_or(0, |counted| counted.count)
    }

    /// Number of all reasons.
    pub fn total(&self) -> u64 {
        self.by_reason.values().map(|counted| counted.count).sum()
    }

    /// The reasons that were counted.
    pub fn reasons(&self) -> impl Iterator<Item = R> {
        self.by_reason.keys().copied()
    }

    /// Returns whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.by_reason.is_empty()
    }
}

/// `links that lead nowhere: 3 (a/b.jpg, …), links in a loop: 1 (a/c)`
impl<R: Copy + Ord + fmt::Display> fmt::Display for Tally<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (reason, Counted { count, first })) in self.by_reason.iter().enumerate() {
            let (comma, more) = (if i == 0 { "" } else { ", " }, if *count == 1 { "" } else { ", …" });
            write!(f, "{comma}{reason}: {count} ({first}{more})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_add_up_and_the_first_example_stays() {
        let mut tally = Tally::default();
        assert!(tally.is_empty() && tally.to_string().is_empty());
        tally.note("damaged", "b.jpg");
        tally.note("damaged", "a.jpg");
        let mut other = Tally::default();
        other.note("damaged", "c.jpg");
        other.note("missing", "d.jpg");
        tally.merge(&other);
        assert_eq!(tally.to_string(), "damaged: 3 (b.jpg, …), missing: 1 (d.jpg)");
        assert_eq!((tally.total(), tally.count("missing"), tally.count("empty")), (4, 1, 0));
    }
}
