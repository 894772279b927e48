//! The text format of Prometheus, version 0.0.4, which browsers show and every collector reads.
//!
//! `prometheus-client` writes `OpenMetrics`. The samples of both formats are equal, but not the lines that describe them:
//! a counter is described by the name of its samples, and units, infos and the end mark do not exist.

use std::fmt::Write as _;

/// Format of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsFormat {
    /// Prometheus' text format, version 0.0.4.
    Text,
    /// `OpenMetrics`, version 1.0.0.
    OpenMetrics,
}

/// Rewrites the `OpenMetrics` text of this server's registry, which has neither exemplars nor time stamps.
pub(super) fn from_open_metrics(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // `# HELP` comes before `# TYPE`, which decides the name of both.
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|described| described.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_have_the_names_of_their_samples() {
        let open_metrics = "# HELP a_seconds Time.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total{b=\"# c\"} 1.5\n\
            # HELP d Build.\n# TYPE d info\nd_info{e=\"f\"} 1\n# HELP g G.\n# TYPE g gauge\ng 2\n# HELP h H.\n# TYPE h unknown\nh 3\n\
            # HELP i I.\n# TYPE i histogram\ni_sum 1.0\ni_count 2\ni_bucket{le=\"+Inf\"} 2\n# EOF\n";
        let expected = "# HELP a_seconds_total Time.\n# TYPE a_seconds_total counter\na_seconds_total{b=\"# c\"} 1.5\n\
            # HELP d_info Build.\n# TYPE d_info gauge\nd_info{e=\"f\"} 1\n# HELP g G.\n# TYPE g gauge\ng 2\n# HELP h H.\n# TYPE h untyped\nh 3\n\
            # HELP i I.\n# TYPE i histogram\ni_sum 1.0\ni_count 2\ni_bucket{le=\"+Inf\"} 2\n";
        assert_eq!(from_open_metrics(open_metrics), expected);
    }
}
