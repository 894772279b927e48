//! `features` and `correspondence`: on files, without a server.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use densecl_server::app;
use densecl_server::cli::{CorrespondenceArgs, FeaturesArgs, LogFormat, OfflineArgs};
use densecl_server::http::offline::{self, CorrespondenceFiles, OfflineReply};
use densecl_server::http::{AppState, Problem};

use super::output::{start_log, write_result};

pub(crate) fn features(arguments: &FeaturesArgs) -> anyhow::Result<()> {
    let image = read(&arguments.image)?;
    answer(&arguments.offline, async |app, parameters| offline::features(app, image, parameters).await)
}

pub(crate) fn correspondence(arguments: &CorrespondenceArgs) -> anyhow::Result<()> {
    let files = CorrespondenceFiles {
        source: read(&arguments.source)?,
        targets: arguments.targets.iter().map(|target| read(target)).collect::<Result<_, _>>()?,
        mask: arguments.mask.as_deref().map(read).transpose()?,
    };
    answer(&arguments.offline, async |app, parameters| offline::correspondence(app, files, parameters).await)
}

fn answer(
    arguments: &OfflineArgs,
    request: impl AsyncFnOnce(&AppState, &[(String, String)]) -> Result<OfflineReply, Problem>,
) -> anyhow::Result<()> {
    start_log(LogFormat::Text, "warn");
    let state = AppState::new(arguments.config())?;
    app::load(&state)?;
    let format = arguments.format.iter().map(|format| ("format".to_owned(), format.clone()));
    let parameters: Vec<_> = arguments.parameters.iter().cloned().chain(format).collect();
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
