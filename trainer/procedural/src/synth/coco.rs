//! Object annotations as COCO has them: one JSON file a set.
//!
//! Boxes are `[x, y, width, height]` with `(0, 0)` at the *corner* of the top-left pixel. Masks are
//! uncompressed run lengths down the columns: exact, also where a figure has a hole, which polygons
//! are not.

use serde::Serialize;

use super::annotation::Object;
use super::size::Size;
use crate::Category;

/// The annotations of one set.
#[derive(Debug, Serialize)]
pub(super) struct Instances {
    info: Info,
    licenses: [(); 0],
    images: Vec<Image>,
    annotations: Vec<Annotation>,
    categories: Vec<CategoryEntry>,
}

#[derive(Debug, Serialize)]
struct Info {
    description: &'static str,
}

#[derive(Debug, Serialize)]
struct Image {
    id: usize,
    file_name: String,
    width: u32,
    height: u32,
}

#[derive(Debug, Serialize)]
struct Annotation {
    id: usize,
    image_id: usize,
    category_id: u8,
    bbox: [u32; 4],
    area: usize,
    iscrowd: u8,
    segmentation: RunLengths,
}

#[derive(Debug, Serialize)]
struct RunLengths {
    /// Height, then width.
    size: [u32; 2],
    counts: Vec<u32>,
}

#[derive(Debug, Serialize)]
struct CategoryEntry {
    id: u8,
    name: &'static str,
    supercategory: &'static str,
}

impl Instances {
    /// A set without pictures.
    pub(super) fn new() -> Self {
        let entry = |category: Category| CategoryEntry {
            id: category.number(),
            name: category.name(),
            supercategory: "figure",
        };
        Self {
            info: Info { description: "procedural figures" },
            licenses: [],
            images: Vec::new(),
            annotations: Vec::new(),
            categories: Category::ALL.map(entry).into(),
        }
    }

    /// Adds a picture and its objects, each with the run lengths of its mask.
    pub(super) fn add(&mut self, file_name: String, size: Size, objects: Vec<(Object, Vec<u32>)>) {
        let image_id = self.images.len() + 1;
        self.images.push(Image { id: image_id, file_name, width: size.width_px, height: size.height_px });
        for (object, counts) in objects {
            let ([left, right], [top, bottom]) = (object.columns, object.rows);
            self.annotations.push(Annotation {
                id: self.annotations.len() + 1,
                image_id,
                category_id: object.category.number(),
                bbox: [left, top, right - left + 1, bottom - top + 1],
                area: object.area_px,
                iscrowd: 0,
                segmentation: RunLengths { size: [size.height_px, size.width_px], counts },
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_count_their_last_pixels() {
        let object = Object {
            category: Category::Star,
            instance: 1,
            columns: [3, 5],
            rows: [0, 0],
            area_px: 3,
            truncated: false,
            occluded: false,
        };
        let mut set = Instances::new();
        set.add("a.jpg".to_owned(), Size { width_px: 20, height_px: 10 }, vec![(object, vec![30, 1, 9, 1, 9, 1, 149])]);
        let json = serde_json::to_value(&set).unwrap();
        let annotation = &json["annotations"][0];
        assert_eq!(annotation["bbox"], serde_json::json!([3, 0, 3, 1]));
        assert_eq!(annotation["segmentation"]["size"], serde_json::json!([10, 20]));
        assert_eq!((annotation["category_id"].as_u64(), annotation["image_id"].as_u64()), (Some(4), Some(1)));
        assert_eq!(json["categories"][3]["name"], "star");
    }
}
