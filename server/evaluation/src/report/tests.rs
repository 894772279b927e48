use super::*;
use crate::pair_result::{PairIllustration, Unit};
use densecl_vision::image::ImageSize;

fn pair_result(group: &str, scores: Vec<Score>) -> PairResult {
    let size = ImageSize { width: 4, height: 4 };
    PairResult {
        name: "pair".to_owned(),
        sequence: "sequence".to_owned(),
        group: Some(group.to_owned()),
        scores,
        curves: Vec::new(),
        illustration: PairIllustration {
            source: "a".into(),
            target: "b".into(),
            sizes: [size; 2],
            within_px: 1.0,
            matches: Vec::new(),
            mask: None,
        },
    }
}

fn share(value: f64) -> Score {
    Score::new("mma_5px", "MMA at 5 px", Unit::Share, value)
}

fn measured(values: &[(&str, f64)]) -> MethodResult {
    let pair_results = values.iter().map(|&(group, value)| pair_result(group, vec![share(value)])).collect();
    MethodResult { pair_results, describe_ms: 20.0, match_ms: 5.0 }
}

#[test]
fn the_group_of_all_pairs_is_the_first() {
    let runs = vec![measured(&[("v", 0.2), ("i", 1.0), ("v", 0.6)])];
    let row = ReportRow::new("one".to_owned(), MethodKind::Model, DatasetLayout::HPatches, runs).unwrap();
    let names: Vec<(&str, usize)> = row.groups.iter().map(|group| (group.name.as_str(), group.pairs)).collect();
    assert_eq!(names, [("all", 3), ("i", 1), ("v", 2)]);
    let mean = |group: usize| row.groups[group].metrics[0].estimate;
    assert!((mean(0).mean - 0.6).abs() < 1e-12 && (mean(2).mean - 0.4).abs() < 1e-12);
    assert!((mean(2).standard_error - 0.2).abs() < 1e-12);
    assert!((row.cost.unwrap().pair_ms - 45.0).abs() < 1e-12);
    assert!(ReportRow::new("none".to_owned(), MethodKind::Model, DatasetLayout::HPatches, Vec::new()).is_none());
}

#[test]
fn seeds_are_averaged_pair_by_pair() {
    let runs = vec![measured(&[("v", 0.2), ("v", 0.4)]), measured(&[("v", 0.4), ("v", 0.6)])];
    let row = ReportRow::new("random".to_owned(), MethodKind::Random, DatasetLayout::HPatches, runs).unwrap();
    let found = row.measurement("mma_5px").unwrap();
    // Pairs 0.3 and 0.5; means of the seeds 0.3 and 0.5.
    assert!((found.estimate.mean - 0.4).abs() < 1e-12 && (found.estimate.standard_error - 0.1).abs() < 1e-12);
    assert!((found.seed_deviation.unwrap() - 0.02_f64.sqrt()).abs() < 1e-12);
    assert_eq!((found.estimate.count, row.seeds), (2, 2));
}

#[test]
fn categories_have_equal_weights_in_their_mean() {
    let point = |value: f64, weight: f64| Score::new("pck_point_0.1", "PCK", Unit::Share, value).weighted(weight);
    let pair_results = vec![
        pair_result("cat", vec![point(1.0, 1.0)]),
        pair_result("cat", vec![point(0.5, 3.0)]),
        pair_result("dog", vec![point(0.0, 6.0)]),
    ];
    let runs = vec![MethodResult { pair_results, describe_ms: 1.0, match_ms: 1.0 }];
    let row = ReportRow::new("one".to_owned(), MethodKind::Model, DatasetLayout::Spair, runs).unwrap();
    let mean = |name: &str| row.groups.iter().find(|group| group.name == name).unwrap().metrics[0].estimate.mean;
    // Points: 1 of 1, 1.5 of 3, 0 of 6.
    assert!((mean("all") - 0.25).abs() < 1e-12);
    assert!((mean("cat") - 0.625).abs() < 1e-12);
    assert!((mean("mean of the categories") - 0.3125).abs() < 1e-12);
}

#[test]
fn the_table_has_all_metrics_of_few_methods() {
    let row = |name: &str| {
        ReportRow::new(
            name.to_owned(),
            MethodKind::Model,
            DatasetLayout::HPatches,
            vec![measured(&[("v", 0.25), ("v", 0.75)])],
        )
    };
    let mut report = Report {
        schema_version: 1,
        layout: DatasetLayout::HPatches,
        title: "procedural pairs",
        sequences: 1,
        pairs: 2,
        threads: 1,
        rows: Vec::new(),
    };
    report.rows.push(row("res3").unwrap());
    report.rows.push(ReportRow::absent("SIFT".to_owned(), MethodKind::Sift, "no Python".to_owned()));
    let table = text_table(&report);
    assert!(table.starts_with("procedural pairs: 2 pairs in 1 sequence, 1 thread\n"), "{table}");
    assert!(table.contains("SIFT: not measured: no Python\n"), "{table}");
    assert!(table.contains("  MMA at 5 px  50.0 ± 25.0 %\n"), "{table}");
    report.rows.extend((0..6).filter_map(|_| row("again")));
    assert!(!text_table(&report).contains("v: 2 pairs"), "{}", text_table(&report));
}

#[test]
fn the_document_has_the_documented_fields() {
    let row = ReportRow::new(
        "one".to_owned(),
        MethodKind::Random,
        DatasetLayout::HPatches,
        vec![measured(&[("v", 0.25)]), measured(&[("v", 0.75)])],
    );
    let json = serde_json::to_value(row.unwrap()).unwrap();
    assert_eq!(json["kind"], "random");
    let metric = &json["groups"][0]["metrics"][0];
    assert_eq!((&metric["id"], &metric["unit"]), (&"mma_5px".into(), &"share".into()));
    assert_eq!((metric["mean"].as_f64(), metric["count"].as_u64()), (Some(0.5), Some(1)));
    assert!(metric["seed_deviation"].is_f64() && metric["standard_error"].is_f64());
    assert!(json.get("pair_results").is_none() && json.get("absent").is_none());
}
