//! Tests of [`parse`].

use super::*;

const IMAGE: &str = r#"{"name": "images", "datatype": "UINT8", "shape": [1, 1, 2, 3]"#;

fn read(json: &str) -> Result<InferenceRequest, String> {
    parse(&Bytes::copy_from_slice(json.as_bytes()), None).map_err(|error| error.to_string())
}

fn read_binary(json: &str, tail: &[u8]) -> Result<InferenceRequest, String> {
    let body = Bytes::from([json.as_bytes(), tail].concat());
    parse(&body, Some(json.len())).map_err(|error| error.to_string())
}

#[test]
fn json_requests_are_read() {
    let request = read(&format!(
        r#"{{"id": "7", "future": 1, "parameters": {{"priority": 1, "binary_data_output": true}},
            "inputs": [{IMAGE}, "data": [[[[1, 2, 3], [4, 5, 6]]]]}}],
            "outputs": [{{"name": "res5", "parameters": {{"binary_data": false}}}}, {{"name": "res4"}}]}}"#
    ))
    .unwrap();
    let Images { count, height, width, pixels } = &request.images;
    assert_eq!((*count, *height, *width, &pixels[..]), (1, 1, 2, &[1, 2, 3, 4, 5, 6][..]));
    assert_eq!((request.id.as_deref(), request.form), (Some("7"), TensorForm::Binary));
    let outputs = request.outputs.unwrap();
    assert_eq!(outputs[0], RequestedOutput { name: "res5".to_owned(), form: Some(TensorForm::Json), pool: None });
    assert_eq!(outputs[1], RequestedOutput { name: "res4".to_owned(), form: None, pool: None });
}

#[test]
fn pooling_is_read_for_the_request_and_for_each_output() {
    let request = |parameters: &str, of_output: &str| {
        read(&format!(
            r#"{{"parameters": {parameters}, "inputs": [{IMAGE}, "data": [1, 2, 3, 4, 5, 6]}}],
                "outputs": [{{"name": "res5", "parameters": {of_output}}}]}}"#
        ))
    };
    let pooled = request(r#"{"pool": "gem", "normalize": "l2"}"#, r#"{"pool": "max"}"#).unwrap();
    assert_eq!((pooled.pool, pooled.normalize), (Some(Pooling::Gem), true));
    assert_eq!(pooled.outputs.unwrap()[0].pool, Some(Pooling::Max));
    let plain = request(r#"{"normalize": "none"}"#, "{}").unwrap();
    assert_eq!((plain.pool, plain.normalize, plain.outputs.unwrap()[0].pool), (None, false, None));
    for (parameters, expected) in [
        (r#"{"pool": "avg"}"#, "`avg` is not mean, max or gem"),
        (r#"{"pool": 3}"#, "parameters.pool"),
        (r#"{"normalize": "l3"}"#, "parameters.normalize"),
    ] {
        let error = request(parameters, "{}").unwrap_err();
        assert!(error.contains(expected), "{parameters}: {error}");
    }
}

#[test]
fn binary_requests_are_read() {
    let json = format!(r#"{{"inputs": [{IMAGE}, "parameters": {{"binary_data_size": 6}}}}]}}"#);
    let request = read_binary(&json, &[9; 6]).unwrap();
    assert_eq!(&request.images.pixels[..], [9; 6]);
    assert_eq!((request.outputs, request.form, request.id), (None, TensorForm::Json, None));
}

#[test]
fn wrong_sizes_are_refused() {
    let with = |size: &str| format!(r#"{{"inputs": [{IMAGE}, "parameters": {{"binary_data_size": {size}}}}}]}}"#);
    for (json, tail, reason) in [
        (with("6"), &[9; 7][..], "7 bytes follow"),
        (with("6"), &[9; 5], "5 bytes follow"),
        (with("5"), &[9; 5], "is 6 values, and there are 5"),
        (with("18446744073709551615"), &[9; 6], "6 bytes follow"),
        (with("-1"), &[9; 6], "invalid value"),
        (with("18446744073709551616"), &[9; 6], "invalid"),
    ] {
        let error = read_binary(&json, tail).unwrap_err();
        assert!(error.contains(reason), "{json}: {error}");
    }
    let body = Bytes::from_static(b"{}");
    assert_eq!(parse(&body, Some(3)).unwrap_err(), MalformedInference::HeaderLength { header: 3, body: 2 });
    assert_eq!(parse(&body, Some(0)).unwrap_err(), MalformedInference::NoHeader);
}

#[test]
fn errors_name_what_is_wrong() {
    let input = |text: &str| format!(r#"{{"inputs": [{text}]}}"#);
    let shape = |shape: &str| {
        input(&format!(r#"{{"name": "images", "datatype": "UINT8", "shape": {shape}, "data": [1, 2, 3]}}"#))
    };
    let whole = |rest: &str| format!(r#"{{"inputs": [{IMAGE}, "data": [1, 2, 3, 4, 5, 6]}}]{rest}}}"#);
    let many = vec!["1"; 17].join(",");
    for (json, reason) in [
        (String::new(), "cannot be read"),
        ("[]".to_owned(), "cannot be read"),
        ("{}".to_owned(), "`inputs`"),
        (input(""), "not: none"),
        (input(&format!("{IMAGE}}}, {IMAGE}}}")), "`images`, `images`"),
        (input(r#"{"name": "x", "datatype": "UINT8", "shape": []}"#), "`x`"),
        (
            input(r#"{"name": "images", "datatype": "FP32", "shape": [1, 1, 1, 3]}"#),
            "its datatype is `FP32`; it takes UINT8",
        ),
        (input(r#"{"name": "images", "datatype": "BYTES", "shape": [1], "data": ["x"]}"#), "its datatype is `BYTES`"),
        (input(r#"{"name": "images", "datatype": "FP32", "shape": [1, 1, 1, 3], "data": [0.5]}"#), "POST /features"),
        (input(r#"{"name": "images", "datatype": "UINT8", "shape": [1, 3], "data": ["x"]}"#), "multiples of 32"),
        (
            input(r#"{"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": ["x"]}"#),
            "`inputs[0].data[0]`: invalid type",
        ),
        (input(&format!("{IMAGE}}}")), "neither `data` nor"),
        (input(&format!(r#"{IMAGE}, "parameters": {{"binary_data_size": 6}}}}"#)), "no Inference-Header"),
        (input(&format!(r#"{IMAGE}, "data": [1], "parameters": {{"binary_data_size": 6}}}}"#)), "both"),
        (input(&format!(r#"{IMAGE}, "data": [[1, 2, 3, 4, 5, 6]]}}"#)), "neither one flat list nor nested"),
        (input(&format!(r#"{IMAGE}, "shape": [1]}}"#)), "duplicate field `shape`"),
        (input(&format!(r#"{IMAGE}, "parameters": {{"shared_memory_region": "x"}}}}"#)), "shared memory"),
        (shape("[1, 1, 3]"), "has no axis N: of one image it is [1, 1, 1, 3]"),
        (shape("[1, 3, 1, 1]"), "channels first"),
        (shape("[1, 1, 1, 4]"), "[N, height, width, 3]"),
        (shape("[0, 1, 1, 3]"), "no pixels"),
        (shape("[1, 1, 2, 3]"), "is 6 values, and there are 3"),
        (shape("[1, -1, 2, 3]"), "negative size"),
        (shape("[4294967296, 4294967296, 4294967296, 3]"), "larger than any memory"),
        (shape(&format!("[{many}]")), "at most 16"),
        (whole(r#", "outputs": []"#), "leave it out"),
        (whole(r#", "outputs": [{"name": "a"}, {"name": "a"}]"#), "`a` is asked for more than once"),
        (whole(r#", "outputs": [{"name": "a", "parameters": {"classification": 3}}]"#), "`classification`"),
        (whole(r#", "parameters": {"sequence_id": 3}"#), "sequence"),
        (whole(&format!(r#", "id": "{}""#, "x".repeat(2000))), "2000 bytes"),
        (format!("{} more", whole("")), "trailing characters at line 1"),
        (format!("\u{feff}{}", whole(r#", "outputs": []"#)), "leave it out"),
    ] {
        let error = read(&json).unwrap_err();
        assert!(error.contains(reason), "{json}: {error}");
    }
    assert!(read(&format!("\u{feff}{}", whole(""))).is_ok(), "a byte order mark is skipped");
    let other = |body: &[u8]| parse(&Bytes::copy_from_slice(body), None).unwrap_err();
    let wide: Vec<u8> = whole("").encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(other(&wide).to_string().contains("UTF-16"));
    assert_eq!(other(b"\x89PNG\r\n\x1a\n\0\0"), MalformedInference::ImageFile);
    let announced = format!(r#"{{"inputs": [{IMAGE}, "parameters": {{"binary_data_size": 6}}}}]}}"#);
    for pixels in [[0; 6], [255; 6]] {
        assert_eq!(other(&[announced.as_bytes(), &pixels].concat()), MalformedInference::NoHeaderLength);
    }
    let json = whole("");
    assert!(read_binary(&json, b"more").unwrap_err().contains("4 bytes follow"));
}
