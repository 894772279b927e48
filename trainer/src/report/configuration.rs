//! Differences between the configurations of runs.

use std::collections::{BTreeMap, BTreeSet};

/// A key with its value in every run, as TOML; `None` where a run has no such key.
pub(super) type Difference = (String, Vec<Option<String>>);

/// The keys, such as `optimizer.batch`, whose values are not the same in all of the
/// configurations, in order. Text that is not TOML has no keys.
pub(super) fn differences(configs: &[&str]) -> Vec<Difference> {
    let flat: Vec<_> = configs.iter().map(|text| flatten(text)).collect();
    let keys: BTreeSet<_> = flat.iter().flat_map(BTreeMap::keys).collect();
    let rows = keys.into_iter().map(|key| (key.clone(), flat.iter().map(|config| config.get(key).cloned()).collect()));
    rows.filter(|(_, values): &Difference| values.windows(2).any(|pair| pair[0] != pair[1])).collect()
}

/// The value of one key as a number.
pub(super) fn number(config: &str, key: &str) -> Option<f64> {
    flatten(config).get(key)?.parse().ok()
}

fn flatten(text: &str) -> BTreeMap<String, String> {
    let mut flat = BTreeMap::new();
    let mut rest: Vec<(String, toml::Value)> =
        toml::from_str::<toml::Table>(text).unwrap_or_default().into_iter().collect();
    while let Some((key, value)) = rest.pop() {
        match value {
            toml::Value::Table(table) => {
                rest.extend(table.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
            }
            value => drop(flat.insert(key, value.to_string())),
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_listed() {
        let a = "seed = 0\n[optimizer]\nbatch = 8\nlearning_rate = 0.03\n";
        let b = "seed = 0\n[optimizer]\nbatch = 16\n";
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            differences(&[a, b]),
            [
                ("optimizer.batch".to_owned(), vec![some("8"), some("16")]),
                ("optimizer.learning_rate".to_owned(), vec![some("0.03"), None]),
            ]
        );
        assert!(differences(&[a, a]).is_empty() && differences(&[a]).is_empty());
        assert_eq!(number(a, "optimizer.batch"), Some(8.0));
    }
}
