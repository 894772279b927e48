//! Drawings of the page: pairs of images with their matches and curves as SVG, frames with masks as JPEG.

use std::fmt::Write;

use ::image::codecs::jpeg::JpegEncoder;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::dataset::read_picture;
use super::super::pair_result::{Curve, MeasuredMatch, PairIllustration, PropagatedMask};
use super::ReportRow;
use super::page_error::PageError;
use densecl_vision::image::{ImageSize, RgbImage, resize};

/// Largest longer side of an image on the page.
const LONGEST_SIDE_PX: u32 = 512;
const GAP_PX: f64 = 8.0;
const JPEG_QUALITY: u8 = 82;
/// Objects' colours: Okabe and Ito's, which stay apart for all kinds of colour vision.
const OBJECT_COLORS: [[u8; 3]; 7] =
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [213, 94, 0], [204, 121, 167], [0, 114, 178]];

/// An image of the page, and its scale relative to the file's image.
struct PageImage {
    url: String,
    width: u32,
    height: u32,
    scale: f64,
}

/// Both images of a pair with its matches: right ones thin and green, wrong ones red and thicker the larger the error.
pub(super) fn pair(illustration: &PairIllustration) -> Result<String, PageError> {
    let source = page_image(&read_picture(&illustration.source)?.image)?;
    let target = page_image(&read_picture(&illustration.target)?.image)?;
    let left = f64::from(source.width) + GAP_PX;
    let (width, height) = (left + f64::from(target.width), source.height.max(target.height));
    let mut svg = format!("<svg class=\"pair\" viewBox=\"0 0 {width:.0} {height}\" role=\"img\">");
    for (picture, x) in [(&source, 0.0), (&target, left)] {
        let PageImage { url, width, height, .. } = picture;
        let _ = write!(svg, "<image href=\"{url}\" x=\"{x:.0}\" y=\"0\" width=\"{width}\" height=\"{height}\"/>");
    }
    let mut matches: Vec<&MeasuredMatch> = illustration.matches.iter().collect();
    // Wrong matches are drawn on top of right ones.
    matches.sort_by(|a, b| a.error_px.total_cmp(&b.error_px));
    for found in matches {
        let (class, line_width) = stroke(found.error_px, illustration.within_px);
        let from = ((found.source.x + 0.5) * source.scale, (found.source.y + 0.5) * source.scale);
        let to = (left + (found.target.x + 0.5) * target.scale, (found.target.y + 0.5) * target.scale);
        let error =
            if found.error_px.is_finite() { format!("{:.1} px", found.error_px) } else { "no truth".to_owned() };
        let _ = write!(
            svg,
            "<g class=\"{class}\" stroke-width=\"{line_width:.1}\"><title>{error}</title>\
             <line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>\
             <circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.2\"/><circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.2\"/></g>",
            from.0, from.1, to.0, to.1, from.0, from.1, to.0, to.1,
        );
    }
    Ok(svg + "</svg>")
}

/// Class and width of a line. The width grows with the error, up to eight times the limit.
fn stroke(error_px: f64, within_px: f64) -> (&'static str, f64) {
    if error_px < within_px {
        return ("right", 0.9);
    }
    ("wrong", 0.9 + 0.6 * (error_px / within_px).log2().min(3.0))
}

/// A frame tinted by its propagated labels, with the outlines of the true objects.
pub(super) fn masked_frame(illustration: &PairIllustration, mask: &PropagatedMask) -> Result<String, PageError> {
    let mut picture = read_picture(&illustration.target)?.image;
    let width = picture.width() as usize;
    let label_at = |labels: &[u8], x: usize, y: usize| labels.get(y * width + x).copied().unwrap_or_default();
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let (x, y) = (x as usize, y as usize);
        let found = label_at(&mask.found, x, y);
        if found > 0 {
            let color = OBJECT_COLORS[usize::from(found - 1) % OBJECT_COLORS.len()];
            for (value, tint) in pixel.0.iter_mut().zip(color) {
                *value = value.midpoint(tint);
            }
        }
        let truth = label_at(&mask.truth, x, y);
        let is_outline = x + 1 < width && truth != label_at(&mask.truth, x + 1, y)
            || (y + 1) * width < mask.truth.len() && truth != label_at(&mask.truth, x, y + 1);
        if is_outline {
            pixel.0 = [255; 3];
        }
    }
    let PageImage { url, width, height, .. } = page_image(&picture)?;
    Ok(format!("<img src=\"{url}\" width=\"{width}\" height=\"{height}\" alt=\"\">"))
}

fn page_image(picture: &RgbImage) -> Result<PageImage, PageError> {
    let size = ImageSize::from(picture.dimensions());
    let scale = (f64::from(LONGEST_SIDE_PX) / f64::from(size.longer_side())).min(1.0);
    let length = |pixels: u32| ((f64::from(pixels) * scale).round() as u32).max(1);
    let small = resize(picture, ImageSize { width: length(size.width), height: length(size.height) })?;
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY).encode_image(&small)?;
    let url = format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg));
    Ok(PageImage { url, width: small.width(), height: small.height(), scale })
}

/// The first curve of the report for every method that has it, from 0 to 100 %.
pub(super) fn curves(rows: &[ReportRow]) -> String {
    let chart = rows.iter().find_map(|row| row.curves.first()).and_then(|mean| Chart::new(mean.curve));
    let Some(chart) = chart else { return String::new() };
    let mut svg = chart.axes();
    for (index, row) in rows.iter().enumerate() {
        let Some(mean) = row.curves.iter().find(|mean| mean.curve == chart.curve) else { continue };
        let points = mean.curve.thresholds.iter().zip(&mean.shares);
        let points: Vec<String> =
            points.map(|(&threshold, &share)| format!("{:.1},{:.1}", chart.x(threshold), Chart::y(share))).collect();
        let _ = write!(svg, "<polyline class=\"curve row-{}\" points=\"{}\"/>", index % 8, points.join(" "));
    }
    svg + "</svg>"
}

/// The coordinate system of a curve.
struct Chart {
    curve: &'static Curve,
    first: f64,
    last: f64,
}

impl Chart {
    const WIDTH: f64 = 560.0;
    const HEIGHT: f64 = 300.0;
    const LEFT: f64 = 46.0;
    const BOTTOM: f64 = 40.0;

    fn new(curve: &'static Curve) -> Option<Self> {
        Some(Self { curve, first: *curve.thresholds.first()?, last: *curve.thresholds.last()? })
    }

    fn x(&self, threshold: f64) -> f64 {
        Self::LEFT + (threshold - self.first) / (self.last - self.first) * (Self::WIDTH - Self::LEFT - 12.0)
    }

    fn y(share: f64) -> f64 {
        10.0 + (1.0 - share) * (Self::HEIGHT - Self::BOTTOM - 10.0)
    }

    /// The opening tag, the grid and the labels of both axes.
    fn axes(&self) -> String {
        let (width, height, left, right) = (Self::WIDTH, Self::HEIGHT, Self::LEFT, self.x(self.last));
        let mut svg = format!("<svg class=\"chart\" viewBox=\"0 0 {width} {height}\" role=\"img\">");
        for fifth in 0..=5 {
            let share = f64::from(fifth) / 5.0;
            let y = Self::y(share);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{left}\" y1=\"{y:.1}\" x2=\"{right:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.0} %</text>",
                left - 6.0,
                y + 4.0,
                share * 100.0,
            );
        }
        let thresholds = self.curve.thresholds;
        let step = if thresholds.len() <= 10 { 1 } else { 2 };
        for &threshold in thresholds.iter().step_by(step) {
            let (x, y) = (self.x(threshold), height - Self::BOTTOM + 18.0);
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{threshold}</text>");
        }
        let (x, y) = (f64::midpoint(left, right), height - 4.0);
        let Curve { label, axis, .. } = self.curve;
        let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{label}, by {axis}</text>");
        svg
    }
}
