//! New keys.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::file::is_valid_name;
use super::rate::RateSetting;
use super::{Day, KEY_PREFIX, KeyDigest};
use crate::rate::Rate;

/// A new random key. It is shown once and stored nowhere.
pub struct NewKey {
    secret: String,
    entry: Entry,
}

/// Entry of the key in the file of keys, without the hash.
struct Entry {
    name: String,
    is_admin: bool,
    rate: Option<RateSetting>,
    expires: Option<Day>,
}

/// The key cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NewKeyError {
    /// The name has characters that are not allowed, or is too long.
    #[error("a key's name has 1 to 64 letters, digits, and any of . _ - @")]
    Name,
    /// The operating system gives no random numbers.
    #[error("the operating system gives no random numbers")]
    Random(#[source] getrandom::Error),
}

impl NewKey {
    /// Makes a key from 256 random bits.
    ///
    /// # Errors
    /// If the name is not valid, or the operating system gives no random numbers.
    pub fn generate(name: &str) -> Result<Self, NewKeyError> {
        if !is_valid_name(name) {
            return Err(NewKeyError::Name);
        }
        let mut bits = [0; 32];
        getrandom::fill(&mut bits).map_err(NewKeyError::Random)?;
        let secret = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bits));
        Ok(Self { secret, entry: Entry { name: name.to_owned(), is_admin: false, rate: None, expires: None } })
    }

    /// Allows loading and unloading models.
    #[must_use]
    pub fn for_administration(mut self) -> Self {
        self.entry.is_admin = true;
        self
    }

    /// Limits the rate of requests.
    #[must_use]
    pub fn with_rate(mut self, rate: Rate, burst: Option<NonZeroU32>) -> Self {
        self.entry.rate = Some(RateSetting { rate, burst });
        self
    }

    /// Makes the key expire at the end of a day, in UTC.
    #[must_use]
    pub fn expiring_after(mut self, day: Day) -> Self {
        self.entry.expires = Some(day);
        self
    }

    /// The key itself.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The entry for the file of keys, in TOML; it contains the hash, not the key.
    pub fn entry(&self) -> String {
        let Entry { name, is_admin, rate, expires } = &self.entry;
        let sha256 = format!("sha256 = \"{}\"", KeyDigest::from_key(self.secret.as_bytes()).to_hex());
        let mut lines = vec!["[[key]]".to_owned(), format!("name = \"{name}\""), sha256];
        if *is_admin {
            lines.push("admin = true".to_owned());
        }
        if let Some(RateSetting { rate, burst }) = rate {
            lines.push(format!("rate = \"{rate}\""));
            lines.extend(burst.map(|burst| format!("burst = {burst}")));
        }
        lines.extend(expires.map(|day| format!("expires = {day}")));
        lines.join("\n")
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("name", &self.entry.name).finish_non_exhaustive()
    }
}
