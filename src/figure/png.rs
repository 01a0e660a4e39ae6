//! A palette PNG for panels of many cells: one byte a cell, where SVG needs fifty. Written without
//! compression, so that it needs no other crate.

use super::colors::Scale;
use crate::base64::base64;

/// A `data:` address of an image with one pixel a value; NaN is transparent.
pub(super) fn data_url(rows: &[Vec<f64>], scale: &Scale) -> String {
    let width = rows.first().map_or(0, Vec::len);
    let mut raw = Vec::with_capacity((width + 1) * rows.len());
    for row in rows {
        raw.push(0); // filter: none
        raw.extend(row.iter().map(|value| level(*value, scale)));
    }
    let colors =
        (0..255).map(|i| scale.at(scale.low + (scale.high - scale.low) * f64::from(i) / 254.0));
    let palette: Vec<u8> = std::iter::once([255, 255, 255]).chain(colors).flatten().collect();
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::new();
    header.extend((width as u32).to_be_bytes());
    header.extend((rows.len() as u32).to_be_bytes());
    header.extend([8, 3, 0, 0, 0]); // 8 bits, palette
    chunk(&mut png, b"IHDR", &header);
    chunk(&mut png, b"PLTE", &palette);
    chunk(&mut png, b"tRNS", &[0]);
    chunk(&mut png, b"IDAT", &stored(&raw));
    chunk(&mut png, b"IEND", &[]);
    format!("data:image/png;base64,{}", base64(&png))
}

/// Palette index of a value: 0 is transparent, 1 to 255 the scale.
pub(super) fn level(value: f64, scale: &Scale) -> u8 {
    if value.is_nan() {
        return 0;
    }
    let t = ((value - scale.low) / (scale.high - scale.low)).clamp(0.0, 1.0);
    1 + (t * 254.0).round() as u8
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], content: &[u8]) {
    png.extend((content.len() as u32).to_be_bytes());
    let start = png.len();
    png.extend(kind);
    png.extend(content);
    let sum = crc32(&png[start..]);
    png.extend(sum.to_be_bytes());
}

/// A zlib stream of uncompressed blocks.
fn stored(raw: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let blocks = raw.len().div_ceil(65_535).max(1);
    for i in 0..blocks {
        let block = &raw[i * 65_535..raw.len().min((i + 1) * 65_535)];
        let length = block.len() as u16;
        out.push(u8::from(i + 1 == blocks));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    let (a, b) = raw.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    out.extend((b << 16 | a).to_be_bytes());
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    };
    !bytes.iter().fold(!0, step)
}
