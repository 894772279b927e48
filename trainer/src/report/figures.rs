//! The final figures of a run, with their units.

use super::run_record::RunRecord;

/// Format of a number.
#[derive(Clone, Copy)]
enum NumberFormat {
    Whole,
    Digits(usize),
    Scientific,
    Percent,
    Duration,
    Mebibytes,
}

/// Choice of a number among those of a run.
#[derive(Clone, Copy)]
enum Pick {
    Last,
    Mean,
}

/// Rows of the table: label, key in the metrics, choice of the number, format.
const FIGURES: [(&str, &str, Pick, NumberFormat); 17] = [
    ("steps", "step", Pick::Last, NumberFormat::Whole),
    ("epochs", "epoch", Pick::Last, NumberFormat::Digits(2)),
    ("loss, total", "loss", Pick::Last, NumberFormat::Digits(4)),
    ("loss, global", "loss_global", Pick::Last, NumberFormat::Digits(4)),
    ("loss, dense", "loss_dense", Pick::Last, NumberFormat::Digits(4)),
    ("global top-1", "global_top1", Pick::Last, NumberFormat::Percent),
    ("dense top-1", "dense_top1", Pick::Last, NumberFormat::Percent),
    ("matched with the same cell", "same_cell", Pick::Last, NumberFormat::Percent),
    ("place similarity", "place_similarity", Pick::Last, NumberFormat::Digits(2)),
    ("embedding std", "embedding_std", Pick::Last, NumberFormat::Digits(4)),
    ("feature std", "feature_std", Pick::Last, NumberFormat::Digits(4)),
    ("learning rate", "learning_rate", Pick::Last, NumberFormat::Scientific),
    ("pairs/s, mean", "pairs_per_second", Pick::Mean, NumberFormat::Digits(1)),
    ("data wait, mean", "data_wait", Pick::Mean, NumberFormat::Percent),
    ("skipped images", "skipped_images", Pick::Last, NumberFormat::Whole),
    ("wall time", "seconds", Pick::Last, NumberFormat::Duration),
    ("peak memory", "peak_memory_bytes", Pick::Last, NumberFormat::Mebibytes),
];

/// Rows of the table: a label, and the figure of every run as text; `None` where a run has not
/// measured it. Figures that no run has are left out.
pub(super) fn rows(records: &[RunRecord]) -> Vec<(&'static str, Vec<Option<String>>)> {
    let row = |(label, key, pick, form): (&'static str, &str, Pick, NumberFormat)| {
        let figure = |record: &RunRecord| find(record, key, pick).map(|number| write(number, form));
        (label, records.iter().map(figure).collect::<Vec<_>>())
    };
    FIGURES.into_iter().map(row).filter(|(_, figures)| figures.iter().any(Option::is_some)).collect()
}

fn find(record: &RunRecord, key: &str, pick: Pick) -> Option<f64> {
    match pick {
        Pick::Last => record.last()?.get(key).copied().flatten(),
        Pick::Mean => {
            let numbers: Vec<f64> = record.lines.iter().filter_map(|line| line.get(key).copied().flatten()).collect();
            (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
        }
    }
}

fn write(number: f64, form: NumberFormat) -> String {
    match form {
        NumberFormat::Whole => format!("{number:.0}"),
        NumberFormat::Digits(digits) => format!("{number:.digits$}"),
        NumberFormat::Scientific => format!("{number:.2e}"),
        NumberFormat::Percent => format!("{number:.1} %"),
        NumberFormat::Duration => duration(number as u64),
        NumberFormat::Mebibytes => format!("{:.0} MiB", number / f64::from(1 << 20)),
    }
}

fn duration(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {seconds:02} s"),
        _ => format!("{hours} h {minutes:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_the_last_or_the_mean() {
        let line = |step: f64, speed: f64| {
            [("step", step), ("pairs_per_second", speed)].map(|(key, value)| (key.to_owned(), Some(value))).into()
        };
        let record = RunRecord { lines: vec![line(4.0, 10.0), line(8.0, 30.0)], ..RunRecord::default() };
        let expected = [("steps", vec![Some("8".to_owned())]), ("pairs/s, mean", vec![Some("20.0".to_owned())])];
        assert_eq!(rows(&[record]), expected);
    }

    #[test]
    fn durations_are_read_at_a_glance() {
        assert_eq!([5, 65, 3600 * 27 + 61].map(duration), ["5 s", "1 min 05 s", "27 h 01 min"]);
    }
}
