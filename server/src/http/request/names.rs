//! Names that a request may have, for messages about other names.

/// Names of the images and the parameters of a body.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownNames {
    pub(super) images: Vec<&'static str>,
    pub(super) parameters: Vec<&'static str>,
}

impl KnownNames {
    /// Says what could stand in place of a name that is not known.
    pub(super) fn describe_for(&self, unknown: &str) -> String {
        let (base, is_indexed) = match unknown.split_once('[') {
            Some((base, _)) => (base, true),
            None => (unknown, false),
        };
        if is_indexed && self.images.contains(&base) {
            return format!("several images are several parts of the name `{base}`, without brackets");
        }
        if is_indexed && self.parameters.contains(&base) {
            return format!(
                "`{base}` is one text, without brackets; a list is sent as JSON: json.dumps in Python, JSON.stringify in JavaScript"
            );
        }
        let alike = self.images.iter().chain(&self.parameters).find(|known| is_alike(known, unknown));
        let guess = alike.map_or_else(String::new, |known| format!("did you mean `{known}`? "));
        let images =
            if self.images.is_empty() { String::new() } else { format!("images are {}; ", quoted(&self.images)) };
        format!("{guess}{images}parameters are {}", quoted(&self.parameters))
    }
}

/// True if the names differ in letter case, hyphens or a plural alone.
fn is_alike(known: &str, unknown: &str) -> bool {
    let plain = |name: &str| {
        let name = name.to_ascii_lowercase().replace(['-', '_'], "");
        name.strip_suffix('s').map_or(name.clone(), str::to_owned)
    };
    plain(known) == plain(unknown)
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_names_are_listed_and_the_likely_one_is_named() {
        let known = KnownNames { images: vec!["image"], parameters: vec!["layer", "points", "top_k"] };
        for (unknown, expected) in [
            ("photo", "images are `image`; parameters are `layer`, `points`, `top_k`"),
            ("images", "did you mean `image`?"),
            ("Layer", "did you mean `layer`?"),
            ("topK", "did you mean `top_k`?"),
            ("image[]", "several parts of the name `image`"),
            ("points[0][1]", "`points` is one text"),
            ("other[0]", "parameters are"),
        ] {
            assert!(known.describe_for(unknown).contains(expected), "{unknown}: {}", known.describe_for(unknown));
        }
    }
}
