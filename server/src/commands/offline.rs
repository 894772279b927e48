//! `features` and `correspondence` on files: the request goes through the very router that serves,
//! without a socket, so that the answers are the same.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, StatusCode, header};
use densecl_server::app;
use densecl_server::cli::{CorrespondenceArgs, FeaturesArgs, LogFormat, OfflineArgs};
use densecl_server::http::{AppState, router};
use serde_json::Value;
use tower::ServiceExt;

use super::output::{start_log, write_result};

const BOUNDARY: &str = "densecl-part-boundary-5f0c1b7e9a";

pub(crate) fn features(arguments: &FeaturesArgs) -> anyhow::Result<()> {
    answer("/features", &[("image", &arguments.image)], &arguments.offline)
}

pub(crate) fn correspondence(arguments: &CorrespondenceArgs) -> anyhow::Result<()> {
    let mut files = vec![("source", arguments.source.as_path())];
    files.extend(arguments.targets.iter().map(|target| ("target", target.as_path())));
    files.extend(arguments.mask.iter().map(|mask| ("mask", mask.as_path())));
    answer("/correspondence", &files, &arguments.offline)
}

fn answer(path: &str, files: &[(&str, &Path)], arguments: &OfflineArgs) -> anyhow::Result<()> {
    start_log(LogFormat::Text, "warn");
    let request = request(path, files, arguments)?;
    let state = AppState::new(arguments.config())?;
    app::load(&state)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (status, is_text, body) = runtime.block_on(async {
        let response = router(state).oneshot(request).await?;
        let is_text =
            response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().ends_with(b"json"));
        anyhow::Ok((response.status(), is_text, to_bytes(response.into_body(), usize::MAX).await?))
    })?;
    if status != StatusCode::OK {
        bail!(refusal(&body));
    }
    write_result(&body, is_text, arguments.out.as_deref())
}

fn request(path: &str, files: &[(&str, &Path)], arguments: &OfflineArgs) -> anyhow::Result<Request<Body>> {
    let format = arguments.format.iter().map(|format| ("format", format.as_str()));
    let parameters = arguments.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(format);
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    Request::post(format!("{path}?{query}"))
        .header(header::CONTENT_TYPE, content_type)
        .body(form(files)?.into())
        .context("cannot write the request")
}

fn form(files: &[(&str, &Path)]) -> anyhow::Result<Vec<u8>> {
    let mut form = Vec::new();
    for (name, file) in files {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let disposition = format!("Content-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"");
        form.extend(format!("--{BOUNDARY}\r\n{disposition}\r\n\r\n").into_bytes());
        form.extend(bytes);
        form.extend(b"\r\n");
    }
    form.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
    Ok(form)
}

/// What the problem document says, in one line.
fn refusal(body: &Bytes) -> String {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    format!("{}: {} ({})", text("title"), text("detail"), text("hint"))
}
