use std::hint::black_box;
use std::io::Write as _;
use std::time::Instant;

use super::*;

fn entry(name: &str, key: &str, more: &str) -> String {
    let digest = KeyDigest::from_key(key.as_bytes()).to_hex();
    format!("[[key]]\nname = \"{name}\"\nsha256 = \"{digest}\"\n{more}\n")
}

fn file_with(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn open(text: &str) -> Result<ApiKeys, String> {
    ApiKeys::open(file_with(text).path()).map_err(|error| error.to_string())
}

fn moment(days_since_1970: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(24 * days_since_1970)
}

#[test]
fn a_key_is_found_anywhere_in_the_file() {
    let names = ["one", "two", "three"];
    let keys = open(&names.map(|name| entry(name, &format!("key of {name}"), "")).concat()).unwrap();
    for name in names {
        let found = keys.authenticate(format!("key of {name}").as_bytes(), SystemTime::now()).unwrap();
        assert_eq!((&**found.name(), found.is_admin()), (name, false));
    }
    for wrong in ["", "key of", "key of two ", "KEY OF TWO", &"x".repeat(60_000)] {
        assert_eq!(keys.authenticate(wrong.as_bytes(), SystemTime::now()).unwrap_err(), KeyRefusal::Unknown);
    }
    // The hash is not a key.
    let hash = KeyDigest::from_key(b"key of two").to_hex();
    assert!(keys.authenticate(hash.as_bytes(), SystemTime::now()).is_err());
}

#[test]
fn a_new_key_and_its_entry_agree() {
    let rate = "20/s".parse().unwrap();
    let day = "2030-02-28".parse().unwrap();
    let key = NewKey::generate("some.one@here").unwrap().for_administration().with_rate(rate, None).expiring_after(day);
    assert_eq!(key.secret().len(), KEY_PREFIX.len() + 43);
    assert!(key.secret().starts_with(KEY_PREFIX) && !key.entry().contains(&key.secret()[KEY_PREFIX.len()..]));
    let keys = open(&key.entry()).unwrap();
    let found = keys.authenticate(key.secret().as_bytes(), moment(0)).unwrap();
    assert!(&**found.name() == "some.one@here" && found.is_admin() && found.take_token() == Some(Ok(())));
    assert_ne!(NewKey::generate("a").unwrap().secret(), NewKey::generate("a").unwrap().secret());
    for name in ["", "a b", "a\nb", "ä", "\"", &"x".repeat(65)] {
        assert!(NewKey::generate(name).is_err(), "{name:?}");
    }
}

#[test]
fn a_key_is_valid_until_the_end_of_its_last_day() {
    // 2024-02-29 is day 19,782 since 1970, 2000-01-01 day 10,957 and 2100-03-01 day 47,541.
    for (day, number) in [("2024-02-29", 19_782), ("2000-01-01", 10_957), ("2100-03-01", 47_541), ("1970-01-01", 0)] {
        let keys = open(&entry("a", "key", &format!("expires = {day}"))).unwrap();
        let last = moment(number + 1).checked_sub(Duration::from_secs(1)).unwrap();
        assert!(keys.authenticate(b"key", last).is_ok(), "{day}");
        assert_eq!(keys.authenticate(b"key", moment(number + 1)).unwrap_err(), KeyRefusal::Expired, "{day}");
    }
}

#[test]
fn errors_of_a_file_name_the_line_and_do_not_repeat_it() {
    let good = entry("a", "key", "");
    let secret = NewKey::generate("b").unwrap().secret().to_owned();
    let with = |more: &str| entry("a", "key", more);
    let wrong = [
        (format!("{good}{}", entry("a", "other", "")), "line 6: there is another key of this name"),
        (format!("{good}{}", entry("b", "key", "")), "line 7: there is another key with this `sha256`"),
        (with("admin = 1"), "line 4: "),
        (with("quota = 1"), "line 4: unknown field"),
        (with("rate = \"fast\""), "line 4: `rate` is"),
        (with("burst = 3"), "line 4: `burst` needs a `rate`"),
        (with("rate = \"1/s\"\nburst = 0"), "line 5: `burst` is at least 1"),
        (with("expires = 2030-02-28T00:00:00Z"), "line 4: `expires` is a day"),
        (entry("a b", "key", ""), "line 2: `name` has"),
        (format!("[[key]]\nname = \"a\"\nsha256 = \"{secret}\"\n"), "line 3: `sha256` is 64"),
        (format!("[[key]]\nname = \"a\"\nsha256 = \"{}\"\n", "é".repeat(32)), "line 3: `sha256` is 64"),
        (format!("[[key]]\nname = \"a\"\nadmin = \"{secret}\"\n"), "this is not the place for a key"),
        (format!("[[key]]\nname = \"a\"\n{secret} = 1\n"), "this is not the place for a key"),
        ("[[key]]\nname = \"a\"\n".to_owned(), "line 1: missing field `sha256`"),
        ("[[key]\n".to_owned(), "line 1: "),
        (String::new(), "holds no key"),
        ("# ".repeat(1 << 20), "larger than"),
    ];
    for (text, expected) in wrong {
        let error = open(&text).unwrap_err();
        assert!(error.contains(expected), "{error}: not {expected}");
        assert!(!error.contains(&secret) && !error.contains(&secret[KEY_PREFIX.len()..]), "{error}");
    }
    assert!(ApiKeys::open(Path::new("/nowhere/keys.toml")).is_err());
    assert!(ApiKeys::open(Path::new("/")).is_err());
    assert!(matches!(ApiKeys::open(file_with("\u{0}").path()), Err(KeyFileError::Malformed { .. })));
}

#[test]
fn a_reload_removes_and_adds_keys_and_keeps_rates() {
    let file = file_with(&[entry("old", "1", "rate = \"1/h\""), entry("gone", "2", "")].concat());
    let keys = ApiKeys::open(file.path()).unwrap();
    let check = |key: &str| keys.authenticate(key.as_bytes(), SystemTime::now());
    assert_eq!(check("1").unwrap().take_token(), Some(Ok(())));
    std::fs::write(file.path(), [entry("new", "3", ""), entry("old", "1", "rate = \"1/h\"")].concat()).unwrap();
    assert_eq!(keys.reload().unwrap(), [Arc::from("gone")]);
    assert_eq!(check("2").unwrap_err(), KeyRefusal::Unknown);
    assert!(check("3").is_ok());
    assert!(check("1").unwrap().take_token().unwrap().is_err(), "a reload does not refill the bucket");
    std::fs::write(file.path(), entry("new", "3", "unknown = 1")).unwrap();
    assert!(keys.reload().is_err() && check("1").is_ok() && check("3").is_ok(), "the old keys stay");
    std::fs::remove_file(file.path()).unwrap();
    assert!(keys.reload().is_err() && keys.count() == 2);
}

#[test]
fn debug_output_shows_neither_key_nor_hash() {
    let key = NewKey::generate("a").unwrap();
    let keys = open(&key.entry()).unwrap();
    let found = keys.authenticate(key.secret().as_bytes(), SystemTime::now()).unwrap();
    let KeyDigest(digest) = KeyDigest::from_key(key.secret().as_bytes());
    let hexadecimal = KeyDigest(digest).to_hex();
    let printed = format!("{keys:?} {keys:#?} {found:?} {key:?} {:?}", KeyDigest(digest));
    assert!(printed.contains("\"a\""), "{printed}");
    for secret in [&key.secret()[KEY_PREFIX.len()..], &hexadecimal, &hexadecimal[..8], &format!("{digest:?}")] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

/// Time to compare each digest of `sent` with all keys: the least of many interleaved trials, to
/// leave out interruptions.
fn fastest(keys: &[Arc<ApiKey>], sent: [KeyDigest; 2]) -> [Duration; 2] {
    const TRIALS: usize = 400;
    let mut fastest = [Duration::MAX; 2];
    for trial in 0..2 * TRIALS {
        let started = Instant::now();
        for _ in 0..20 {
            black_box(find(black_box(keys), black_box(sent[trial % 2])));
        }
        fastest[trial % 2] = fastest[trial % 2].min(started.elapsed());
    }
    fastest
}

/// Ratio of two times: to refuse a digest that differs from every key in the last byte alone, and one
/// that differs in the first byte.
fn time_ratio(first: KeyDigest) -> f64 {
    let near = |last: u8| {
        let mut digest = first;
        digest.0[31] = last;
        digest
    };
    let keys: Vec<_> = (1..=200)
        .map(|last| {
            Arc::new(ApiKey { name: "a".into(), digest: near(last), is_admin: false, expires: None, rate: None })
        })
        .collect();
    let mut far = near(0);
    far.0[0] ^= 1;
    let [near, far] = fastest(&keys, [near(0), far]);
    near.as_secs_f64() / far.as_secs_f64()
}

#[test]
#[ignore = "measures time: run it by hand, with --release and on an idle machine"]
fn the_time_of_a_comparison_does_not_depend_on_common_bytes() {
    // Another process can disturb all trials of one kind; not three times in a row.
    let ratios: Vec<f64> = (0..3).map(|_| time_ratio(KeyDigest::from_key(b"key"))).collect();
    assert!(ratios.iter().any(|ratio| (0.9..1.1).contains(ratio)), "{ratios:?}");
}
