//! Tests of [`Reader`].

use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use futures_util::stream;
use proptest::prelude::*;

use super::super::names::KnownNames;
use super::super::{Expected, ImageCount, ImageField};
use super::*;

const EXPECTED: Expected<1> = Expected {
    images: [ImageField { part: "image", json: "images", count: ImageCount::AtLeastOne }],
    raw: true,
    parameters: || vec!["points", "side"],
};
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
const FORM: &str = "multipart/form-data; boundary=b";

fn read_as(content_type: &str, body: &[u8]) -> Result<Upload<1>, RequestError> {
    let request = Request::post("/").header(header::CONTENT_TYPE, content_type);
    let mut request = request.body(Body::from(body.to_vec())).unwrap();
    DefaultBodyLimit::apply(DefaultBodyLimit::max(1 << 20), &mut request);
    let names = KnownNames { images: vec!["image"], parameters: (EXPECTED.parameters)() };
    let reader = Reader::new(Images::new(EXPECTED, 4), Parameters::new(10).with_names(names), 1 << 20);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(reader.read(request))
}

fn part(head: &str, content: &[u8]) -> Vec<u8> {
    [b"--b\r\n", head.as_bytes(), b"\r\n\r\n", content, b"\r\n"].concat()
}

fn named(name: &str, content: &[u8]) -> Vec<u8> {
    part(&format!("Content-Disposition: form-data; name=\"{name}\""), content)
}

fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat().as_slice(), b"--b--\r\n"].concat()
}

fn message(content_type: &str, body: &[u8]) -> String {
    read_as(content_type, body).unwrap_err().to_string()
}

#[test]
fn a_part_is_what_its_name_says() {
    for (disposition, kind) in [
        ("form-data; name=\"points\"", ""),
        ("form-data; name=\"points\"; filename=\"blob\"", "\r\nContent-Type: application/json"),
        ("form-data; filename=\"image.png\"; name=\"points\"", "\r\nContent-Type: image/png"),
        ("FORM-DATA; NAME=points; FILENAME=points.json; filename*=utf-8''image", "\r\ncontent-type: text/plain"),
        ("form-data; filename=\"name=image; name=\\\"image\\\"\"; name=\"points\"", ""),
    ] {
        let points = part(&format!("Content-Disposition: {disposition}{kind}"), b"\xef\xbb\xbf[[1, 2]]\r\n");
        let image = part("content-disposition: form-data; filename=\"points\"; name=\"image\"", PNG);
        let Upload { images: [images], parameters } = read_as(FORM, &form(&[points, image])).unwrap();
        assert_eq!(images, [PNG], "{disposition}");
        assert_eq!(parameters.as_slice(), [("points".to_owned(), "[[1, 2]]".to_owned())], "{disposition}");
    }
}

#[test]
fn boundaries_are_read_as_clients_write_them() {
    for (content_type, boundary) in [
        ("Multipart/Form-Data; Boundary=b", "b"),
        ("multipart/form-data; boundary=\"b c\"", "b c"),
        ("multipart/form-data; charset=utf-8; boundary=----=_Part_5:/?", "----=_Part_5:/?"),
        ("multipart/form-data;boundary=\"a\\\"b\"", "a\"b"),
    ] {
        let body =
            String::from_utf8_lossy(&form(&[named("image", b"content")])).replace("--b", &format!("--{boundary}"));
        assert_eq!(read_as(content_type, body.as_bytes()).unwrap().images[0], ["content"], "{content_type}");
    }
}

#[test]
fn mistakes_are_named() {
    let good = form(&[named("image", PNG)]);
    for (content_type, body, expected) in [
        ("multipart/form-data", good.clone(), "names no boundary"),
        ("multipart/form-data; boundary=", good.clone(), "names no boundary"),
        (
            "multipart/form-data; boundary=c",
            good.clone(),
            "begin with `--b`, and its Content-Type names the boundary `c`",
        ),
        (FORM, PNG.to_vec(), "the file of an image"),
        (FORM, b"{\"images\": []}".to_vec(), "no line `--b`"),
        (FORM, Vec::new(), "no line `--b`"),
        (FORM, b"--b\nContent-Disposition: form-data; name=image\n\nx\n--b--\n".to_vec(), "LF alone"),
        (FORM, good[..good.len() - 10].to_vec(), "before its last line, `--b--`"),
        (FORM, good[..6].to_vec(), "before its last line"),
        (FORM, form(&[part("no colon", PNG)]), "headers of a part"),
        (FORM, form(&[part("Content-Disposition: form-data", PNG)]), "has no name"),
        (FORM, form(&[part("X: y", PNG)]), "has no name"),
        (
            FORM,
            form(&[part("Content-Disposition: form-data; name=image\r\nContent-Transfer-Encoding: BASE64", b"aGk")]),
            "`image` has the Content-Transfer-Encoding `base64`",
        ),
        (FORM, form(&[named("image", b"photos/a.jpg")]), "`image` is the text `photos/a.jpg`"),
        (FORM, form(&[named("image", b"data:image/png;base64,aGk=")]), "`image` is base64"),
        (FORM, form(&[named("image", b"iVBORw0KGgoAAAANSUhEUg==")]), "`image` is base64"),
        (FORM, form(&[named("side", b"5\x001\x002\x00")]), "UTF-16"),
        (FORM, form(&[named("side", b"\xe9")]), "not UTF-8"),
        (
            FORM,
            form(&[part("Content-Disposition: form-data; name=photo; filename=a.png", PNG)]),
            "unknown part or parameter `photo`: images are `image`; parameters are `points`, `side`",
        ),
    ] {
        let found = message(content_type, &body);
        assert!(found.contains(expected), "{}: {found}", String::from_utf8_lossy(&body));
    }
}

#[test]
fn a_body_of_small_pieces_reaches_the_parser_in_few_batches() {
    const PIECES: usize = 20_000;
    let pieces = stream::iter((0..PIECES).map(|i| Ok::<_, ()>(Bytes::from(vec![i as u8; 1000]))));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let batches: Vec<Bytes> = runtime.block_on(growing_batches(pieces).try_collect()).unwrap();
    assert!(batches.len() < 40, "{}", batches.len());
    let whole: Vec<u8> = (0..PIECES).flat_map(|i| [i as u8; 1000]).collect();
    assert_eq!(batches.concat(), whole);
}

proptest! {
    #[test]
    fn content_and_filename_are_never_taken_for_a_head(content: Vec<u8>, file: String, split in 1_usize..50) {
        let file = file.replace('\\', r"\\").replace('"', "\\\"").replace(['\r', '\n'], " ");
        prop_assume!(!file.chars().any(char::is_control) && !content.is_empty());
        prop_assume!(!content.windows(5).any(|bytes| bytes == b"\r\n--b"));
        prop_assume!(check_bytes("", &content, true).is_ok());
        let image = part(&format!("Content-Disposition: form-data; filename=\"{file}\"; name=\"image\""), &content);
        let body = form(&[image, named("side", b"64")]);
        let Upload { images: [images], parameters } = read_as(FORM, &body).unwrap();
        prop_assert_eq!(&images[0][..], &content[..]);
        prop_assert_eq!(parameters.as_slice().len(), 1);
        // Only the line end behind the last boundary may be missing.
        prop_assert_eq!(read_as(FORM, &body[..body.len() - split]).is_err(), split > 2);
    }
}
