//! Checks that the entropy-coded data of a JPEG file hold the whole picture, and finds their end.
//!
//! Codes are walked through without computing a pixel: a file that lost its end marker is told apart from half a
//! picture. This is done only where the end marker is missing. Time grows with the data and with the blocks of a scan;
//! memory, of progressive files only, is 8 bytes a block, a sixteenth of what decoding takes.

use super::frame::{FrameComponent, FrameHeader, is_frame_header};
use super::huffman::{BitReader, HuffmanTables, TableClass};
use super::segments::Segments;
use super::{marker, standard_tables};
use crate::image::decode::fields::Fields;

/// Coefficients of a block.
const COEFFICIENTS: usize = 64;
/// No bit of a coefficient has been sent.
const NOTHING: u8 = u8::MAX;

/// Offset behind the data, if they hold every bit of every coefficient.
pub(super) fn end_of_whole_picture(bytes: &[u8]) -> Option<usize> {
    let mut segments = Segments::new(bytes);
    let mut frame = None;
    let mut coverage: Option<Coverage> = None;
    let mut tables = HuffmanTables::default();
    for (_, payload) in Segments::new(&standard_tables::segments()) {
        tables.define(payload)?;
    }
    let mut restart_interval = 0;
    while let Some((marker, payload)) = segments.next() {
        match marker {
            marker::HUFFMAN_TABLES => tables.define(payload)?,
            marker::RESTART_INTERVAL => restart_interval = usize::from(Fields::big_endian(payload).u16(0)?),
            marker::START_OF_SCAN => {
                if coverage.is_none() {
                    coverage = Some(Coverage::new(frame.as_ref()?));
                }
                let coverage = coverage.as_mut()?;
                let scan = Scan::from_segment(payload, coverage)?;
                let mut walk =
                    Walk { reader: BitReader::new(segments.rest()), tables: &tables, restart_interval, eob_run: 0 };
                walk.scan(&scan, coverage)?;
                segments.pass(walk.reader.position());
                coverage.add(&scan);
                if coverage.is_whole() {
                    return Some(bytes.len() - segments.rest().len());
                }
            }
            _ if is_frame_header(marker) && coverage.is_none() => {
                frame = Some(FrameHeader::from_segment(marker, payload).ok()?);
            }
            _ => {}
        }
    }
    None
}

/// Progress of the picture so far.
struct Coverage {
    is_progressive: bool,
    /// Minimum coded units of a scan with several components.
    units_across: usize,
    units_down: usize,
    components: Vec<ComponentCoverage>,
}

struct ComponentCoverage {
    id: u8,
    /// Blocks in a unit.
    horizontal: usize,
    vertical: usize,
    /// Blocks of a scan of its own.
    blocks_across: usize,
    blocks_down: usize,
    /// Of each coefficient, the lowest bit that was sent.
    lowest_bits: [u8; COEFFICIENTS],
    /// Of a progressive file, for every block of all units, which coefficients are not zero.
    nonzero: Vec<u64>,
}

impl Coverage {
    fn new(frame: &FrameHeader) -> Self {
        let (horizontal, vertical) = frame.largest_factors();
        let (width, height) = (u64::from(frame.size.width), u64::from(frame.size.height));
        let (units_across, units_down) = (width.div_ceil(8 * horizontal), height.div_ceil(8 * vertical));
        let component = |&FrameComponent { id, horizontal: h, vertical: v }: &FrameComponent| {
            let blocks = units_across * u64::from(h) * units_down * u64::from(v);
            ComponentCoverage {
                id,
                horizontal: h.into(),
                vertical: v.into(),
                blocks_across: (width * u64::from(h)).div_ceil(horizontal).div_ceil(8) as usize,
                blocks_down: (height * u64::from(v)).div_ceil(vertical).div_ceil(8) as usize,
                lowest_bits: [NOTHING; COEFFICIENTS],
                nonzero: if frame.is_progressive { vec![0; blocks as usize] } else { Vec::new() },
            }
        };
        Self {
            is_progressive: frame.is_progressive,
            units_across: units_across as usize,
            units_down: units_down as usize,
            components: frame.components.iter().map(component).collect(),
        }
    }

    fn add(&mut self, scan: &Scan) {
        for of_scan in &scan.components {
            self.components[of_scan.index].lowest_bits[scan.first..=scan.last].fill(scan.lowest_bit);
        }
    }

    fn is_whole(&self) -> bool {
        self.components.iter().all(|component| component.lowest_bits == [0; COEFFICIENTS])
    }
}

/// Content of a scan.
struct Scan {
    components: Vec<ScanComponent>,
    /// The first and last coefficient, in zigzag order.
    first: usize,
    last: usize,
    /// The bits above `lowest_bit` were sent before.
    is_refinement: bool,
    lowest_bit: u8,
}

#[derive(Clone, Copy)]
struct ScanComponent {
    /// Place in the frame.
    index: usize,
    dc_table: u8,
    ac_table: u8,
}

impl Scan {
    fn from_segment(payload: &[u8], coverage: &Coverage) -> Option<Self> {
        let (&count, rest) = payload.split_first()?;
        let (selectors, rest) = rest.split_at_checked(2 * usize::from(count))?;
        let components = selectors.chunks_exact(2).map(|selector| {
            let index = coverage.components.iter().position(|component| component.id == selector[0])?;
            Some(ScanComponent { index, dc_table: selector[1] >> 4, ac_table: selector[1] & 15 })
        });
        let components = components.collect::<Option<Vec<_>>>().filter(|components| !components.is_empty())?;
        if !coverage.is_progressive {
            return Some(Self { components, first: 0, last: COEFFICIENTS - 1, is_refinement: false, lowest_bit: 0 });
        }
        let &[first, last, bits, ..] = rest else { return None };
        let (first, last) = (usize::from(first), usize::from(last));
        // A scan holds means alone, or other coefficients of one component.
        let is_valid =
            if first == 0 { last == 0 } else { last < COEFFICIENTS && first <= last && components.len() == 1 };
        is_valid.then_some(Self { components, first, last, is_refinement: bits >> 4 > 0, lowest_bit: bits & 15 })
    }
}

/// A walk through the data of one scan. Every step is `None` where the data end too early, or are no valid codes.
struct Walk<'a> {
    reader: BitReader<'a>,
    tables: &'a HuffmanTables,
    restart_interval: usize,
    /// Blocks, this one included, without further coefficients that were zero.
    eob_run: u32,
}

impl Walk<'_> {
    fn scan(&mut self, scan: &Scan, coverage: &mut Coverage) -> Option<()> {
        let (units_across, units_down) = (coverage.units_across, coverage.units_down);
        if let &[of_scan] = scan.components.as_slice() {
            let component = &coverage.components[of_scan.index];
            let (across, down) = (component.blocks_across, component.blocks_down);
            let stride = units_across * component.horizontal;
            return (0..across * down).try_for_each(|unit| {
                self.restart_before(unit)?;
                self.block(scan, of_scan, coverage, unit / across * stride + unit % across)
            });
        }
        (0..units_across * units_down).try_for_each(|unit| {
            self.restart_before(unit)?;
            scan.components.iter().try_for_each(|&of_scan| {
                let component = &coverage.components[of_scan.index];
                let (horizontal, vertical) = (component.horizontal, component.vertical);
                let (x, y) = (unit % units_across * horizontal, unit / units_across * vertical);
                (0..horizontal * vertical).try_for_each(|block| {
                    let (x, y) = (x + block % horizontal, y + block / horizontal);
                    self.block(scan, of_scan, coverage, y * units_across * horizontal + x)
                })
            })
        })
    }

    fn restart_before(&mut self, unit: usize) -> Option<()> {
        if self.restart_interval == 0 || unit == 0 || !unit.is_multiple_of(self.restart_interval) {
            return Some(());
        }
        self.eob_run = 0;
        self.reader.pass_restart_marker()
    }

    fn block(&mut self, scan: &Scan, of_scan: ScanComponent, coverage: &mut Coverage, block: usize) -> Option<()> {
        let component = &mut coverage.components[of_scan.index];
        if !coverage.is_progressive {
            return self.sequential_block(of_scan);
        }
        match (scan.first, scan.is_refinement) {
            (0, false) => self.mean(of_scan.dc_table),
            (0, true) => self.reader.skip(1),
            (_, false) => self.first_bits(scan, of_scan.ac_table, component.nonzero.get_mut(block)?),
            (_, true) => self.further_bit(scan, of_scan.ac_table, component.nonzero.get_mut(block)?),
        }
    }

    fn mean(&mut self, dc_table: u8) -> Option<()> {
        let size = self.tables.decode(TableClass::Dc, dc_table, &mut self.reader)?;
        self.reader.skip(size)
    }

    /// A run of zeros and the size of the coefficient behind it; what size 0 means depends on the run.
    fn run_and_size(&mut self, ac_table: u8) -> Option<(u8, u8)> {
        let symbol = self.tables.decode(TableClass::Ac, ac_table, &mut self.reader)?;
        Some((symbol >> 4, symbol & 15))
    }

    fn sequential_block(&mut self, of_scan: ScanComponent) -> Option<()> {
        self.mean(of_scan.dc_table)?;
        let mut place = 1;
        while place < COEFFICIENTS {
            let (run, size) = self.run_and_size(of_scan.ac_table)?;
            if size == 0 && run < 15 {
                break;
            }
            self.reader.skip(size)?;
            place += usize::from(run) + 1;
        }
        Some(())
    }

    /// Figure G.1 of the standard, and its number of blocks in a band that has ended.
    fn first_bits(&mut self, scan: &Scan, ac_table: u8, nonzero: &mut u64) -> Option<()> {
        let mut place = scan.first;
        while self.eob_run == 0 && place <= scan.last {
            let (run, size) = self.run_and_size(ac_table)?;
            if size == 0 && run < 15 {
                self.eob_run = (1 << run) + self.reader.bits(run)?;
                break;
            }
            place += usize::from(run);
            if size > 0 {
                *nonzero |= 1_u64.checked_shl(place as u32)?;
                self.reader.skip(size)?;
            }
            place += 1;
        }
        self.eob_run = self.eob_run.saturating_sub(1);
        Some(())
    }

    /// Figure G.7 of the standard: a bit of every coefficient that is not zero, among codes for those that become so.
    fn further_bit(&mut self, scan: &Scan, ac_table: u8, nonzero: &mut u64) -> Option<()> {
        let mut place = scan.first;
        while self.eob_run == 0 && place <= scan.last {
            let (mut run, size) = self.run_and_size(ac_table)?;
            if size == 0 && run < 15 {
                self.eob_run = (1 << run) + self.reader.bits(run)?;
                break;
            }
            // The sign of the new coefficient.
            self.reader.skip(u8::from(size > 0))?;
            while place <= scan.last {
                if *nonzero >> place & 1 == 1 {
                    self.reader.skip(1)?;
                } else if run == 0 {
                    break;
                } else {
                    run -= 1;
                }
                place += 1;
            }
            if size > 0 && place <= scan.last {
                *nonzero |= 1 << place;
            }
            place += 1;
        }
        if self.eob_run > 0 {
            let rest = (place..=scan.last).filter(|place| *nonzero >> place & 1 == 1).count();
            self.reader.skip(rest as u8)?;
            self.eob_run -= 1;
        }
        Some(())
    }
}
