//! Object annotations as PASCAL VOC has them: one XML file a picture.
//!
//! Boxes hold their first and last pixel, counted from 1. No text in them needs escaping: names are
//! made of letters, digits and underscores.

use super::annotation::Object;
use super::size::Size;

/// The annotation file of a picture.
pub(super) fn annotation(file_name: &str, size: Size, objects: &[Object]) -> String {
    let Size { width_px, height_px } = size;
    let objects: String = objects.iter().map(object_element).collect();
    format!(
        "<annotation>\n\
         \t<folder>JPEGImages</folder>\n\
         \t<filename>{file_name}</filename>\n\
         \t<source><database>procedural figures</database></source>\n\
         \t<size><width>{width_px}</width><height>{height_px}</height><depth>3</depth></size>\n\
         \t<segmented>0</segmented>\n\
         {objects}</annotation>\n"
    )
}

fn object_element(object: &Object) -> String {
    let ([left, right], [top, bottom]) = (object.columns, object.rows);
    format!(
        "\t<object>\n\
         \t\t<name>{name}</name>\n\
         \t\t<pose>Unspecified</pose>\n\
         \t\t<truncated>{truncated}</truncated>\n\
         \t\t<occluded>{occluded}</occluded>\n\
         \t\t<difficult>0</difficult>\n\
         \t\t<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>\n\
         \t</object>\n",
        name = object.category.name(),
        truncated = u8::from(object.truncated),
        occluded = u8::from(object.occluded),
        xmin = left + 1,
        ymin = top + 1,
        xmax = right + 1,
        ymax = bottom + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Category;

    #[test]
    fn boxes_are_counted_from_one() {
        let object = Object {
            category: Category::Ring,
            instance: 1,
            columns: [0, 19],
            rows: [2, 9],
            area_px: 90,
            truncated: true,
            occluded: false,
        };
        let text = annotation("train_0000.jpg", Size { width_px: 20, height_px: 10 }, &[object]);
        for part in [
            "<filename>train_0000.jpg</filename>",
            "<width>20</width><height>10</height><depth>3</depth>",
            "<name>ring</name>",
            "<truncated>1</truncated>",
            "<xmin>1</xmin><ymin>3</ymin><xmax>20</xmax><ymax>10</ymax>",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}
