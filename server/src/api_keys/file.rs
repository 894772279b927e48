//! The file of keys: TOML, one table `[[key]]` a key.
//!
//! Error messages name a line and never repeat its content, which may be a key in the wrong place.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU32;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use subtle::ConstantTimeEq;
use toml::Spanned;
use toml::value::{Date, Datetime};

use super::rate::{KeyRate, RateSetting};
use super::{ApiKey, KEY_PREFIX, KeyDigest};

const MAX_FILE_BYTES: u64 = 1 << 20;
/// Bounds the time of a request, which is compared with all keys.
const MAX_KEYS: usize = 4096;
const MAX_NAME_BYTES: usize = 64;
const DIGEST_DIGITS: usize = 64;

/// The file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("the file of API keys cannot be read")]
    Unreadable(#[from] io::Error),
    /// The file is too large to be a file of keys.
    #[error("the file of API keys is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// There are too many keys.
    #[error("there are {0} API keys; at most {MAX_KEYS} are compared")]
    TooMany(usize),
    /// There is no key, so nobody could use the server.
    #[error("the file of API keys holds no key; `densecl-server keys new` makes one")]
    Empty,
    /// The content is not valid.
    #[error("the file of API keys, line {line}: {reason}")]
    Malformed {
        /// Line of the file, counted from 1.
        line: usize,
        /// The error, without the line's content.
        reason: String,
    },
}

/// A calendar day in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    date: Date,
}

/// Text that is not a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`expires` is a day, such as 2030-12-31")]
pub struct DayError;

impl Day {
    /// True if the day has passed.
    pub fn is_over(self, now: SystemTime) -> bool {
        let Date { year, month, day } = self.date;
        // Days since 1970 in the proleptic Gregorian calendar; years begin in March, so that leap
        // days come last.
        let (year, month, day) = (i64::from(year), i64::from(month), i64::from(day));
        let year = if month <= 2 { year - 1 } else { year };
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let days = 365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468;
        let seconds = u64::try_from((days + 1) * 86_400).unwrap_or(0);
        now >= SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }
}

impl TryFrom<Datetime> for Day {
    type Error = DayError;

    fn try_from(datetime: Datetime) -> Result<Self, DayError> {
        match datetime {
            Datetime { date: Some(date), time: None, offset: None } => Ok(Self { date }),
            Datetime { .. } => Err(DayError),
        }
    }
}

impl FromStr for Day {
    type Err = DayError;

    fn from_str(text: &str) -> Result<Self, DayError> {
        text.parse::<Datetime>().map_err(|_| DayError)?.try_into()
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.date.fmt(f)
    }
}

/// True if a name can be used in logs and metrics.
pub(super) fn is_valid_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// Reads the keys of a file; those that were there before keep the state of their rate limits.
pub(super) fn read(path: &Path, before: &[Arc<ApiKey>]) -> Result<Vec<Arc<ApiKey>>, KeyFileError> {
    let file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o004 != 0 {
        tracing::warn!("every user of this machine can read the file of API keys; `chmod o-r` it");
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(KeyFileError::TooLarge);
    }
    parse(&text, before)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    key: Vec<RawKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    name: Spanned<String>,
    sha256: Spanned<String>,
    rate: Option<Spanned<String>>,
    burst: Option<Spanned<u32>>,
    #[serde(default)]
    admin: bool,
    expires: Option<Spanned<Datetime>>,
}

pub(super) fn parse(text: &str, before: &[Arc<ApiKey>]) -> Result<Vec<Arc<ApiKey>>, KeyFileError> {
    let raw: RawFile = toml::from_str(text).map_err(|error| {
        let reason = error.message();
        // The parser's message may repeat a key that stands in the wrong place.
        let reason = if reason.contains(KEY_PREFIX) { "this is not the place for a key" } else { reason };
        malformed(text, error.span().unwrap_or_default(), reason)
    })?;
    match raw.key.len() {
        0 => return Err(KeyFileError::Empty),
        count if count > MAX_KEYS => return Err(KeyFileError::TooMany(count)),
        _ => {}
    }
    let (mut names, mut digests) = (HashSet::new(), HashSet::new());
    let mut keys = Vec::with_capacity(raw.key.len());
    for raw in raw.key {
        let (name_at, digest_at) = (raw.name.span(), raw.sha256.span());
        let key = raw.into_key(text, before)?;
        if !names.insert(Arc::clone(&key.name)) {
            return Err(malformed(text, name_at, "there is another key of this name"));
        }
        if !digests.insert(key.digest.0) {
            return Err(malformed(text, digest_at, "there is another key with this `sha256`"));
        }
        keys.push(Arc::new(key));
    }
    Ok(keys)
}

impl RawKey {
    fn into_key(self, text: &str, before: &[Arc<ApiKey>]) -> Result<ApiKey, KeyFileError> {
        if !is_valid_name(self.name.get_ref()) {
            let reason = "`name` has 1 to 64 letters, digits, and any of . _ - @";
            return Err(malformed(text, self.name.span(), reason));
        }
        let digest = read_digest(self.sha256.get_ref()).ok_or_else(|| {
            let reason = "`sha256` is 64 hexadecimal digits, as `densecl-server keys new` prints them";
            malformed(text, self.sha256.span(), reason)
        })?;
        let setting = self.rate_setting(text)?;
        let expires = self.expires.map(|expires| {
            let at = expires.span();
            Day::try_from(expires.into_inner()).map_err(|error| malformed(text, at, &error.to_string()))
        });
        let known = before.iter().find(|key| key.digest.ct_eq(&digest).into()).and_then(|key| key.rate.as_ref());
        let rate = setting.map(|setting| match known {
            Some(known) if known.setting == setting => known.clone(),
            _ => KeyRate::new(setting),
        });
        let name = self.name.into_inner().into();
        Ok(ApiKey { name, digest, is_admin: self.admin, expires: expires.transpose()?, rate })
    }

    fn rate_setting(&self, text: &str) -> Result<Option<RateSetting>, KeyFileError> {
        let burst = self.burst.as_ref().map(|burst| {
            let reason = "`burst` is at least 1";
            NonZeroU32::new(*burst.get_ref()).ok_or_else(|| malformed(text, burst.span(), reason))
        });
        let burst = burst.transpose()?;
        match (&self.rate, &self.burst) {
            (None, Some(burst)) => Err(malformed(text, burst.span(), "`burst` needs a `rate`")),
            (None, None) => Ok(None),
            (Some(rate), _) => {
                let reason = "`rate` is N/s, N/m or N/h, such as \"20/s\"";
                let rate = rate.get_ref().parse().map_err(|_| malformed(text, rate.span(), reason))?;
                Ok(Some(RateSetting { rate, burst }))
            }
        }
    }
}

fn read_digest(text: &str) -> Option<KeyDigest> {
    if text.len() != DIGEST_DIGITS || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; DIGEST_DIGITS / 2];
    for (place, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(KeyDigest(digest))
}

fn malformed(text: &str, at: Range<usize>, reason: &str) -> KeyFileError {
    let line = 1 + text.bytes().take(at.start).filter(|&byte| byte == b'\n').count();
    KeyFileError::Malformed { line, reason: reason.to_owned() }
}
