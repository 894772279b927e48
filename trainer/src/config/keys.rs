//! Keys of a configuration: `--set` overrides, and the right name for one that does not exist.

use anyhow::{Context, Result, bail};

/// A configuration with every key in it.
const COMPLETE: &str = include_str!("../../configs/tiny.toml");

/// Below this likeness, in [0, 1], a name is no suggestion.
const LIKENESS: f64 = 0.75;

/// Sets the values of `key=value` lines, where a key is a path and a value is TOML or a bare word.
pub(super) fn apply(table: &mut toml::Table, overrides: &[String]) -> Result<()> {
    for line in overrides {
        let (key, value) = line.split_once('=').with_context(|| format!("`--set {line}`: expected key=value"))?;
        set(table, key.trim(), parse_value(value.trim()))?;
    }
    Ok(())
}

fn parse_value(text: &str) -> toml::Value {
    let line = format!("value = {text}");
    let parsed = toml::from_str::<toml::Table>(&line).ok().and_then(|mut table| table.remove("value"));
    parsed.unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

fn set(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<()> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            match inner.as_table_mut() {
                Some(inner) => set(inner, rest, value),
                None => bail!("`--set`: `{first}` is a value, not a table"),
            }
        }
    }
}

/// An error for the first key that no configuration has, with the name that was probably meant.
pub(super) fn refuse_unknown(table: &toml::Table) -> Result<()> {
    let known = paths(&complete()?);
    for path in paths(table) {
        if known.contains(&path) {
            continue;
        }
        match nearest(&path, &known) {
            Some(meant) => bail!("there is no key `{path}`; did you mean `{meant}`?"),
            None => bail!("there is no key `{path}`"),
        }
    }
    Ok(())
}

fn complete() -> Result<toml::Table> {
    let config: super::Config = toml::from_str(COMPLETE)?;
    Ok(toml::Table::try_from(config)?)
}

/// Keys that have different values in two complete configurations: key, first and second value.
pub(super) fn differences(a: &toml::Table, b: &toml::Table) -> Vec<(String, String, String)> {
    let value = |table: &toml::Table, path: &str| lookup(table, path).map_or("none".to_owned(), ToString::to_string);
    let mut paths = paths(a);
    paths.extend(self::paths(b));
    paths.sort_unstable();
    paths.dedup();
    let pairs = paths.into_iter().map(|path| (value(a, &path), value(b, &path), path));
    pairs.filter(|(a, b, _)| a != b).map(|(a, b, path)| (path, a, b)).collect()
}

fn lookup<'a>(table: &'a toml::Table, path: &str) -> Option<&'a toml::Value> {
    match path.split_once('.') {
        None => table.get(path),
        Some((first, rest)) => lookup(table.get(first)?.as_table()?, rest),
    }
}

/// Keys with the tables that they are in, joined by dots; a table counts as a key if it is empty.
fn paths(table: &toml::Table) -> Vec<String> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value.as_table() {
            Some(inner) if !inner.is_empty() => found.extend(paths(inner).iter().map(|path| format!("{key}.{path}"))),
            _ => found.push(key.clone()),
        }
    }
    found
}

/// The most alike of the known keys: alike as a whole, or the same name in another table.
fn nearest<'a>(path: &str, known: &'a [String]) -> Option<&'a String> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |candidate: &str| {
        let whole = strsim::normalized_damerau_levenshtein(path, candidate);
        let name = strsim::normalized_damerau_levenshtein(&last(path), &last(candidate));
        whole.max(0.98 * name)
    };
    let scored = known.iter().map(|candidate| (likeness(candidate), candidate));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(likeness, _)| *likeness >= LIKENESS).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(path: &str) -> String {
        let mut table: toml::Table = toml::from_str(COMPLETE).unwrap();
        apply(&mut table, &[format!("{path}=1")]).unwrap();
        refuse_unknown(&table).unwrap_err().to_string()
    }

    #[test]
    fn a_misspelt_or_misplaced_key_gets_the_right_name() {
        assert!(message("optimizer.bach").contains("did you mean `optimizer.batch`?"));
        assert!(message("contrast.batch").contains("`optimizer.batch`"));
        assert!(message("optimiser.batch").contains("`optimizer.batch`"));
        assert!(message("lambda_warmup_steps").contains("`contrast.lambda_warmup_steps`"));
        assert!(message("augment.crop_aera").contains("`augment.crop_area`"));
        assert!(message("contrast.bn_split").contains("`contrast.bn_splits`"));
        assert!(!message("colour_of_the_sky").contains("mean"));
    }

    #[test]
    fn keys_with_defaults_are_known() {
        let mut table: toml::Table = toml::from_str(COMPLETE).unwrap();
        apply(&mut table, &["optimizer.accumulation=2".to_owned(), "network.precision=bf16".to_owned()]).unwrap();
        refuse_unknown(&table).unwrap();
    }
}
