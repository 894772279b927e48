//! Origin of a set of pairs in the layout of `HPatches`: the published one, procedural pairs, or another.

use super::hpatches::Sequence;

/// Names of the published sequences with a change of illumination, without `i_`.
const ILLUMINATION: &str = "\
    ajuntament autannes bologna books boutique bridger brooklyn castle chestnuts contruction crownday crownnight \
    dc dome duda fenis fog fruits gonnenberg greenhouse greentea indiana kions ktirio kurhaus leuven lionday \
    lionnight londonbridge melon miniature nescafe nijmegen nuts objects parking partyfood pencils pinard pool \
    porta resort salon santuario school ski smurf steps table tools toy troulos veggies village whitebuilding \
    yellowtent zion";

/// Names of the published sequences with a change of viewpoint, without `v_`.
const VIEWPOINT: &str = "\
    abstract adam apprentices artisans astronautis azzola bark bees beyus bip bird birdwoman blueprint boat \
    bricks busstop calder cartooncity charing churchill circus coffeehouse colors courses dirtywall dogman \
    eastsouth feast fest gardens grace graffiti home laptop london machines man maskedman pomegranate posters \
    samples soldiers strand sunseason tabletop talent tempera there underground vitro wall wapping war weapons \
    woman wormhole wounded yard yuri";

/// The name of a set for people.
pub(super) fn title(sequences: &[Sequence]) -> &'static str {
    if sequences.iter().all(|sequence| is_published(&sequence.name)) {
        "HPatches"
    } else if sequences.iter().all(is_procedural) {
        "procedural pairs"
    } else {
        "pairs with homographies"
    }
}

fn is_published(name: &str) -> bool {
    let is_in = |names: &str, name: &str| names.split_whitespace().any(|known| known == name);
    match name.split_once('_') {
        Some(("i", rest)) => is_in(ILLUMINATION, rest),
        Some(("v", rest)) => is_in(VIEWPOINT, rest),
        _ => false,
    }
}

/// `densecl-trainer synth --kind pairs` numbers its sequences and writes PPM.
fn is_procedural(sequence: &Sequence) -> bool {
    let number = sequence.name.get(2..).unwrap_or_default();
    let is_number = number.len() >= 4 && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number && sequence.first.extension().is_some_and(|extension| extension == "ppm")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn title_of(names: &[&str], extension: &str) -> &'static str {
        let sequence = |name: &&str| {
            let first = format!("{name}/1.{extension}").into();
            Sequence { name: (*name).to_owned(), first, others: Vec::new() }
        };
        title(&names.iter().map(sequence).collect::<Vec<_>>())
    }

    #[test]
    fn a_set_is_titled_by_what_it_is() {
        assert_eq!(title_of(&["v_adam", "i_zion", "v_wall"], "ppm"), "HPatches");
        assert_eq!(title_of(&["v_0000", "v_0001", "i_0002"], "ppm"), "procedural pairs");
        assert_eq!(title_of(&["v_10000"], "ppm"), "procedural pairs");
        for (names, extension) in [
            (&["v_0000", "i_0001"][..], "png"),
            (&["v_adam", "v_my_wall"], "ppm"),
            (&["v_1", "v_2"], "ppm"),
            (&["v_0000", "v_adam"], "ppm"),
        ] {
            assert_eq!(title_of(names, extension), "pairs with homographies", "{names:?}");
        }
    }

    #[test]
    fn the_published_set_has_116_sequences() {
        let counts = [ILLUMINATION, VIEWPOINT].map(|names| names.split_whitespace().count());
        assert_eq!(counts, [57, 59]);
    }
}
