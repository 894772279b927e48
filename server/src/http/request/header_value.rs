//! Header values with parameters, such as `form-data; name="image"`.
//!
//! The form is that of RFC 9110 section 5.6.6, which `Content-Type` and `Content-Disposition` (RFC 6266, RFC 7578) share:
//! parameters in any order, names in any letter case, values as tokens or as quoted strings, in which a backslash escapes
//! the next character. What does not have that form is read as far as it can be.

/// A value and its parameters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeaderValueParts {
    /// The part before the first semicolon, in lower case.
    pub(super) value: String,
    /// Names in lower case, and values, in their order.
    parameters: Vec<(String, String)>,
}

impl HeaderValueParts {
    /// Reads a header's bytes. Bytes that are not UTF-8 become replacement characters.
    pub(super) fn parse(header: &[u8]) -> Self {
        let (value, mut rest) = split_at_semicolon(header);
        let value = text(value).to_ascii_lowercase();
        let mut parameters = Vec::new();
        while !rest.is_empty() {
            let name_length = rest.iter().position(|byte| matches!(byte, b'=' | b';')).unwrap_or(rest.len());
            let (name, after) = rest.split_at(name_length);
            let Some(after) = after.strip_prefix(b"=") else {
                // A word without a value.
                rest = split_at_semicolon(rest).1;
                continue;
            };
            let after = after.trim_ascii_start();
            let parameter;
            (parameter, rest) = if let Some(quoted) = after.strip_prefix(b"\"") {
                unquote(quoted)
            } else {
                let (token, rest) = split_at_semicolon(after);
                (text(token), rest)
            };
            parameters.push((text(name).to_ascii_lowercase(), parameter));
        }
        Self { value, parameters }
    }

    /// The value of a parameter, the first if it is repeated.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// The bytes before the first semicolon, and those behind it.
fn split_at_semicolon(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&byte| byte == b';').unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

/// The content of a quoted string, and what follows the next semicolon. A string that does not end takes all.
fn unquote(quoted: &[u8]) -> (String, &[u8]) {
    let mut content = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((index, &byte)) = bytes.next() {
        match byte {
            b'"' => return (lossy(&content), split_at_semicolon(&quoted[index + 1..]).1),
            b'\\' => content.extend(bytes.next().map(|(_, &escaped)| escaped)),
            _ => content.push(byte),
        }
    }
    (lossy(&content), &[])
}

fn text(bytes: &[u8]) -> String {
    lossy(bytes.trim_ascii())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn get(header: &str, name: &str) -> Option<String> {
        HeaderValueParts::parse(header.as_bytes()).get(name).map(str::to_owned)
    }

    #[test]
    fn order_case_and_spaces_do_not_matter() {
        for header in [
            r#"form-data; name="image"; filename="a.jpg""#,
            r#"form-data; filename="a.jpg"; name="image""#,
            r#"FORM-DATA; FileName="a.jpg"; NAME="image""#,
            "form-data;name=image;filename=a.jpg",
            "form-data ; name = image ; filename = a.jpg ;",
            "form-data;;name=image; ;filename=a.jpg",
            r#"form-data; hidden; name="image"; filename="a.jpg""#,
            r#"form-data; name="image"; filename="a.jpg"; filename*=utf-8''a.jpg"#,
            r#"form-data; filename*=utf-8''b.jpg; filename="a.jpg"; name="image""#,
            r#"form-data; name="image"; filename="a.jpg"; name="points""#,
            r#"attachment; name="image"; filename="a.jpg""#,
        ] {
            assert_eq!(get(header, "name").as_deref(), Some("image"), "{header}");
            assert_eq!(get(header, "filename").as_deref(), Some("a.jpg"), "{header}");
        }
    }

    #[test]
    fn what_stands_in_quotes_is_no_parameter() {
        for file in [r"a; name=points", r#"name=\"points\".jpg"#, r#"\"; name=\"points"#, "a=b;c", r"C:\\", "name="] {
            for header in [
                format!(r#"form-data; name="image"; filename="{file}""#),
                format!(r#"form-data; filename="{file}"; name="image""#),
            ] {
                assert_eq!(get(&header, "name").as_deref(), Some("image"), "{header}");
            }
        }
        assert_eq!(get(r#"form-data; name="a\"b\\c\d""#, "name").as_deref(), Some(r#"a"b\cd"#));
        assert_eq!(get(r#"form-data; name="é; ü""#, "name").as_deref(), Some("é; ü"));
    }

    #[test]
    fn what_is_malformed_is_read_as_far_as_it_goes() {
        assert_eq!(get("form-data; filename=name=image", "name"), None);
        assert_eq!(get("form-data; xname=image", "name"), None);
        assert_eq!(get(r#"form-data; name="image"#, "name").as_deref(), Some("image"));
        assert_eq!(get(r#"form-data; name="image"x; filename=a"#, "filename").as_deref(), Some("a"));
        assert_eq!(get("", "name"), None);
        assert_eq!(HeaderValueParts::parse(b" Image/JPEG ; q=1").value, "image/jpeg");
        let boundary = "multipart/form-data; charset=utf-8; boundary=----=_Part_5:/?";
        assert_eq!(get(boundary, "boundary").as_deref(), Some("----=_Part_5:/?"));
    }

    proptest! {
        #[test]
        fn a_quoted_value_comes_back(value: String, other: String, first: bool) {
            let quoted = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"");
            let (name, filename) = (format!(r#"name="{}""#, quoted(&value)), format!(r#"filename="{}""#, quoted(&other)));
            let header = if first { format!("form-data; {name}; {filename}") } else { format!("form-data; {filename}; {name}") };
            prop_assert_eq!(get(&header, "name"), Some(value));
            prop_assert_eq!(get(&header, "filename"), Some(other));
        }

        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            let _ = HeaderValueParts::parse(&bytes);
        }
    }
}
