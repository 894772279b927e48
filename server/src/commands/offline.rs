//! `features` and `correspondence`: on files, without a server.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use densecl_server::app;
use densecl_server::cli::{CorrespondenceArgs, FeaturesArgs, LogFormat, OfflineArgs};
use densecl_server::http::offline::{self, CorrespondenceFiles, OfflineReply};
use densecl_server::http::{AppState, Problem};
use densecl_vision::features::Pooling;

use super::output::{start_log, write_result};

pub(crate) fn features(arguments: &FeaturesArgs) -> anyhow::Result<()> {
    let images = arguments.images.iter().map(|image| read(image)).collect::<Result<_, _>>()?;
    let pool = arguments.pool.map(|name| ("pool".to_owned(), Pooling::from(name).to_string()));
    answer(&arguments.offline, pool, async |app, parameters| offline::features(app, images, parameters).await)
}

pub(crate) fn correspondence(arguments: &CorrespondenceArgs) -> anyhow::Result<()> {
    let files = CorrespondenceFiles {
        source: read(&arguments.source)?,
        targets: arguments.targets.iter().map(|target| read(target)).collect::<Result<_, _>>()?,
        mask: arguments.mask.as_deref().map(read).transpose()?,
    };
    answer(&arguments.offline, None, async |app, parameters| offline::correspondence(app, files, parameters).await)
}

fn answer(
    arguments: &OfflineArgs,
    parameter: Option<(String, String)>,
    request: impl AsyncFnOnce(&AppState, &[(String, String)]) -> Result<OfflineReply, Problem>,
) -> anyhow::Result<()> {
    start_log(LogFormat::Text, "warn");
    let state = AppState::new(arguments.config())?;
    app::load(&state)?;
    let format = arguments.format.iter().map(|format| ("format".to_owned(), format.clone()));
    let parameters: Vec<_> = arguments.parameters.iter().cloned().chain(format).chain(parameter).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(request(&state, &parameters)) {
        Ok(OfflineReply { body, is_text }) => write_result(&body, is_text, arguments.out.as_deref()),
        Err(Problem { title, detail, hint, .. }) => bail!("{title}: {detail} ({hint})"),
    }
}

fn read(file: &Path) -> anyhow::Result<Bytes> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(bytes.into())
}
