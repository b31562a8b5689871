//! A database as SQLite keeps it, and the same some transactions later.
//!
//! The pages follow "Database File Format" (sqlite.org/fileformat2.html) as far as a search for blocks
//! can tell: headers, cell pointers, records that grow from the end of a page, and zeros between.

use super::{Pair, real::WORDS, scaled};
use crate::noise::Noise;

/// The default of SQLite.
const PAGE: usize = 4096;

/// How many pages of 256 MiB change in which way.
const REWRITTEN: usize = 2048;
const UPDATED: usize = 2048;
const SWAPPED: usize = 512;
const APPENDED: usize = 1024;

pub(super) fn pair(len: usize) -> Pair {
    let count = (len / PAGE).max(16);
    let mut noise = Noise::new(0x5017E);
    let mut row = 0;
    let mut pages: Vec<Vec<u8>> = (0..count)
        .map(|number| page(number, &mut row, &mut noise))
        .collect();
    describe(&mut pages, 1);
    let basis = pages.concat();

    for _ in 0..scaled(REWRITTEN, len) {
        let number = noise.within(1..count);
        pages[number] = page(number, &mut row, &mut noise);
    }
    for _ in 0..scaled(UPDATED, len) {
        // A value of one record, as long as before.
        let number = noise.within(1..count);
        let at = noise.within(PAGE - 200..PAGE - 8);
        pages[number][at..at + 8].copy_from_slice(&noise.word().to_be_bytes());
    }
    for _ in 0..scaled(SWAPPED, len) {
        let (one, other) = (noise.within(1..count), noise.within(1..count));
        pages.swap(one, other);
    }
    for number in count..count + scaled(APPENDED, len) {
        let appended = page(number, &mut row, &mut noise);
        pages.push(appended);
    }
    describe(&mut pages, 2);
    Pair::new(basis, pages.concat())
}

/// Makes a page: mostly leaves of tables, and some of indexes and inner ones.
fn page(number: usize, row: &mut u64, noise: &mut Noise) -> Vec<u8> {
    const LEAF_OF_TABLE: u8 = 0x0D;
    const LEAF_OF_INDEX: u8 = 0x0A;
    const INNER_OF_TABLE: u8 = 0x05;

    let kind = match number % 64 {
        63 => INNER_OF_TABLE,
        48..63 => LEAF_OF_INDEX,
        _ => LEAF_OF_TABLE,
    };
    let mut page = vec![0; PAGE];
    let header = if number == 0 { DATABASE_HEADER } else { 0 };
    let pointers = header + if kind == INNER_OF_TABLE { 12 } else { 8 };
    // Pages are between two thirds and quite full.
    let free = noise.within(0..PAGE / 3);
    let mut cells: u16 = 0;
    let mut content = PAGE;
    loop {
        *row += 1;
        let cell = match kind {
            INNER_OF_TABLE => {
                let mut cell = (u32::try_from(number).unwrap_or(u32::MAX) + u32::from(cells))
                    .to_be_bytes()
                    .to_vec();
                push_varint(&mut cell, *row);
                cell
            }
            LEAF_OF_INDEX => {
                let mut cell = Vec::new();
                let record = record(&[&words(1, noise)], &[*row]);
                push_varint(&mut cell, record.len() as u64);
                cell.extend(record);
                cell
            }
            _ => {
                let mut cell = Vec::new();
                let count = noise.within(2..24);
                let record = record(
                    &[&words(1, noise), &words(count, noise)],
                    &[noise.word() % 1_000_000, 1_700_000_000 + *row],
                );
                push_varint(&mut cell, record.len() as u64);
                push_varint(&mut cell, *row);
                cell.extend(record);
                cell
            }
        };
        let pointer = pointers + 2 * usize::from(cells);
        if content < pointer + 2 + free + cell.len() {
            break;
        }
        content -= cell.len();
        page[content..content + cell.len()].copy_from_slice(&cell);
        page[pointer..pointer + 2].copy_from_slice(&big_endian(content));
        cells += 1;
    }
    page[header] = kind;
    page[header + 3..header + 5].copy_from_slice(&cells.to_be_bytes());
    page[header + 5..header + 7].copy_from_slice(&big_endian(content));
    page
}

/// Writes the header of the database into its first page.
fn describe(pages: &mut [Vec<u8>], transaction: u32) {
    let count = u32::try_from(pages.len()).unwrap_or(u32::MAX);
    let Some(first) = pages.first_mut() else {
        return;
    };
    let mut put = |at: usize, bytes: &[u8]| first[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"SQLite format 3\0");
    put(16, &big_endian(PAGE));
    put(18, &[1, 1, 0, 64, 32, 32]);
    // Change counter, and the size that is valid for it.
    put(24, &transaction.to_be_bytes());
    put(28, &count.to_be_bytes());
    // Schema cookie, schema format, text encoding.
    put(40, &3u32.to_be_bytes());
    put(44, &4u32.to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(92, &transaction.to_be_bytes());
    put(96, &3_040_001u32.to_be_bytes());
}

const DATABASE_HEADER: usize = 100;

/// A record of texts and eight-byte integers: serial types, then values.
fn record(texts: &[&str], integers: &[u64]) -> Vec<u8> {
    let mut types = Vec::new();
    for text in texts {
        push_varint(&mut types, 13 + 2 * text.len() as u64);
    }
    types.extend(integers.iter().map(|_| 6));
    let mut record = Vec::new();
    push_varint(&mut record, 1 + types.len() as u64);
    record.extend(types);
    record.extend(texts.iter().flat_map(|text| text.bytes()));
    record.extend(integers.iter().flat_map(|number| number.to_be_bytes()));
    record
}

fn words(count: usize, noise: &mut Noise) -> String {
    let words: Vec<&str> = (0..count).map(|_| *noise.pick(WORDS)).collect();
    words.join(" ")
}

/// SQLite's, with the most significant bits first.
fn push_varint(bytes: &mut Vec<u8>, number: u64) {
    let mut shift = 63 - (number | 1).leading_zeros();
    shift -= shift % 7;
    loop {
        let [.., low] = (number >> shift).to_be_bytes();
        bytes.push(low & 0x7F | if shift > 0 { 0x80 } else { 0 });
        let Some(next) = shift.checked_sub(7) else {
            return;
        };
        shift = next;
    }
}

fn big_endian(offset: usize) -> [u8; 2] {
    u16::try_from(offset).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_in_sqlite() {
        for (number, expected) in [
            (0, [0x00].as_slice()),
            (0x7F, &[0x7F]),
            (0x80, &[0x81, 0x00]),
            (0x3FFF, &[0xFF, 0x7F]),
            (0x4000, &[0x81, 0x80, 0x00]),
        ] {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, number);
            assert_eq!(bytes, expected, "{number}");
        }
    }

    #[test]
    fn most_pages_stay_where_they_are() {
        let Pair { basis, target, .. } = pair(4 << 20);
        assert!(target.len() > basis.len());
        let same = basis
            .chunks(PAGE)
            .zip(target.chunks(PAGE))
            .filter(|(one, other)| one == other)
            .count();
        let pages = basis.len() / PAGE;
        assert!(
            same > pages * 9 / 10 && same < pages - 20,
            "{same} of {pages}"
        );
        assert!(basis.starts_with(b"SQLite format 3\0"));
    }
}
