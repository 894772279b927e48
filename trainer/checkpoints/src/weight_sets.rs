//! The networks of a file: several encoders of one method, averaged weights beside trained ones.
//!
//! A file holds dictionaries of names, at its root and below keys; each dictionary may hold several networks behind
//! different prefixes.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

use crate::entries::Entries;
use crate::file::{CheckpointFile, below};
use crate::names::Naming;
use crate::pickle::Value;

/// Prefixes that data parallelism, compilation and trainers add to every name.
pub(crate) const WRAPPERS: [&str; 3] = ["module.", "_orig_mod.", "model."];

/// Keys under which tools put the weights, the likeliest first.
const STATE_KEYS: [&str; 7] = ["state_dict", "model", "model_state_dict", "model_state", "net", "student", "teacher"];

/// Name of a network that has neither key nor prefix.
const ROOT: &str = "root";

/// Dictionaries within dictionaries that are looked at.
const MAX_DEPTH: usize = 4;
const MAX_DICTIONARIES: usize = 256;

/// Parts of a key or prefix that tell averaged weights.
const AVERAGED: [&str; 7] = ["ema", "teacher", "averaged", "averaging", "average", "swa", "shadow"];

/// Parts of a prefix that tell a momentum encoder.
const MOMENTUM: [&str; 4] = ["momentum", "target", "k", "key"];

/// A network in a file.
#[derive(Clone, Debug)]
pub(crate) struct WeightSet<'a> {
    /// Keys from the root to the dictionary, joined by `.`; empty for the root.
    pub(crate) key: String,
    /// Prefix of the backbone's names.
    pub(crate) prefix: String,
    pub(crate) naming: Naming,
    pub(crate) entries: Rc<Entries<'a>>,
}

impl WeightSet<'_> {
    /// Returns `true` for averages of the trained weights.
    pub(crate) fn is_averaged(&self) -> bool {
        AVERAGED.iter().any(|word| self.has_word(word))
    }

    /// Returns `true` for moving averages of other weights.
    fn is_moving_average(&self) -> bool {
        self.is_averaged() || parts(&self.prefix).any(|part| MOMENTUM.contains(&part))
    }

    /// Its name, which [`WeightSet::is_called`] knows: the key, the prefix, or both with a colon between them.
    pub(crate) fn name(&self) -> String {
        let prefix = if unwrapped(&self.prefix).is_empty() { "" } else { self.prefix.trim_end_matches('.') };
        match (self.key.as_str(), prefix) {
            ("", "") => ROOT.to_owned(),
            ("", prefix) => prefix.to_owned(),
            (key, "") => key.to_owned(),
            (key, prefix) => format!("{key}:{prefix}"),
        }
    }

    /// Returns `true` if its key or prefix has this word.
    pub(crate) fn has_word(&self, word: &str) -> bool {
        parts(&self.key).chain(parts(&self.prefix)).any(|part| part == word)
    }

    /// Returns whether `name` means this network: `ema` for averaged weights, its key, its prefix, a part of either, or
    /// both with a colon between them.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let (key, prefix) = name.split_once(':').map_or((None, name), |(key, prefix)| (Some(key), prefix));
        let is_part = |of: &str, part: &str| of == part || of.split(['.', '/']).any(|found| found == part);
        let of_prefix = |part: &str| {
            let (whole, part) = (self.prefix.trim_end_matches('.'), part.trim_end_matches('.'));
            whole == part || unwrapped(&self.prefix).trim_end_matches('.') == part || is_part(whole, part)
        };
        match key {
            Some(key) => self.key == key && of_prefix(prefix),
            None if name == ROOT => self.key.is_empty() && unwrapped(&self.prefix).is_empty(),
            None => name == "ema" && self.is_averaged() || is_part(&self.key, name) || of_prefix(name),
        }
    }

    /// Of the dictionaries, the lowest rank is taken: the root, then the keys that tools use, then others, the outer ones
    /// before the inner.
    fn rank(&self) -> usize {
        let known = STATE_KEYS.iter().position(|key| *key == self.key);
        let others = STATE_KEYS.len() + 1 + self.key.matches('.').count().min(MAX_DEPTH);
        match known {
            _ if self.key.is_empty() => 0,
            Some(position) => position + 1,
            None if self.is_averaged() => others + MAX_DEPTH + 1,
            None => others,
        }
    }
}

/// All networks of a file, those that are taken first in front.
pub(crate) fn find_all(file: &CheckpointFile) -> Vec<WeightSet<'_>> {
    let mut sets = Vec::new();
    let mut seen = HashSet::new();
    let mut waiting = VecDeque::from([(String::new(), file.root(), 0)]);
    while let Some((key, value, depth)) = waiting.pop_front() {
        let Value::Dict(id) = value else { continue };
        if seen.len() == MAX_DICTIONARIES || !seen.insert(id) {
            continue;
        }
        let entries = Rc::new(Entries::from_value(file, value));
        for (prefix, naming) in entries.networks() {
            sets.push(WeightSet { key: key.clone(), prefix, naming, entries: Rc::clone(&entries) });
        }
        if depth < MAX_DEPTH {
            // In Python the last value of a repeated key holds.
            let named = file.graph().entries(value).unwrap_or_default().iter().rev();
            let mut names = HashSet::new();
            let dicts: Vec<_> = named
                .filter_map(|&(name, value)| Some((file.graph().text(name)?, value)))
                .filter(|(name, value)| names.insert(*name) && matches!(value, Value::Dict(_)))
                .filter_map(|(name, value)| Some((below(&key, name)?, value, depth + 1)))
                .take(MAX_DICTIONARIES)
                .collect();
            waiting.extend(dicts.into_iter().rev());
        }
    }
    sets.sort_by_key(WeightSet::rank);
    sets
}

/// The networks of the lowest rank; of those the trained ones, if not all are moving averages.
pub(crate) fn likeliest<'a>(sets: &[WeightSet<'a>]) -> Vec<WeightSet<'a>> {
    let Some(first) = sets.first() else { return Vec::new() };
    let of_first: Vec<_> = sets.iter().filter(|set| set.rank() == first.rank()).cloned().collect();
    let trained: Vec<_> = of_first.iter().filter(|set| !set.is_moving_average()).cloned().collect();
    if trained.is_empty() { of_first } else { trained }
}

/// A prefix without what stands before every name.
pub(crate) fn unwrapped(mut prefix: &str) -> &str {
    while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| prefix.strip_prefix(wrapper)) {
        prefix = rest;
    }
    prefix
}

/// The words of a key or prefix: `state_dict_ema` has three.
fn parts(name: &str) -> impl Iterator<Item = &str> {
    name.split(['.', '/', '_', '-']).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, prefix: &str) -> WeightSet<'static> {
        let (key, prefix) = (key.to_owned(), prefix.to_owned());
        WeightSet { key, prefix, naming: Naming::Torchvision, entries: Rc::default() }
    }

    #[test]
    fn averaged_weights_are_told_by_their_key_or_prefix() {
        for (key, prefix) in [
            ("ema", ""),
            ("model_ema", "module."),
            ("state_dict_ema", ""),
            ("ema_state_dict", ""),
            ("teacher", "backbone."),
            ("state_dict", "ema_model.backbone."),
            ("state_dict", "averaged_model.module."),
            ("callbacks.EMA.ema", ""),
        ] {
            let set = set(key, prefix);
            assert!(set.is_averaged() && set.is_called("ema"), "{key} {prefix}");
            assert!(set.is_called(&set.name()), "{}", set.name());
        }
        for (key, prefix) in [("state_dict", ""), ("schema", "email."), ("", "backbone.")] {
            assert!(!set(key, prefix).is_averaged(), "{key} {prefix}");
        }
    }

    #[test]
    fn a_set_is_called_by_its_key_its_prefix_or_a_part() {
        let query = set("state_dict", "module.encoder_q.");
        for name in ["state_dict", "module.encoder_q", "module.encoder_q.", "encoder_q", "state_dict:module.encoder_q"]
        {
            assert!(query.is_called(name), "{name}");
        }
        for name in ["encoder", "state", "ema", "root", "model:encoder_q", "k"] {
            assert!(!query.is_called(name), "{name}");
        }
        assert!(set("", "module.").is_called("root") && set("checkpoint.model", "").is_called("model"));
    }

    #[test]
    fn moving_averages_come_last() {
        let names = |sets: &[WeightSet<'_>]| likeliest(sets).iter().map(WeightSet::name).collect::<Vec<_>>();
        assert_eq!(names(&[set("a", "net."), set("a", "net_momentum."), set("a", "target_encoder.")]), ["a:net"]);
        assert_eq!(names(&[set("state_dict", "encoder_k.")]), ["state_dict:encoder_k"]);
        assert_eq!(names(&[set("a", ""), set("b", "")]), ["a", "b"], "neither comes first");
        let mut sets =
            [set("callbacks.x.model", ""), set("a_ema", ""), set("a", ""), set("state_dict", ""), set("", "")];
        sets.sort_by_key(WeightSet::rank);
        assert_eq!(sets.each_ref().map(WeightSet::name), ["root", "state_dict", "a", "callbacks.x.model", "a_ema"]);
    }
}
