//! The bytes of a simulated file, in blocks that share memory with the writes they came from.

use std::sync::Arc;

use super::SECTOR_BYTES;
use crate::Buf;

const BLOCK: usize = Buf::ALIGN;
/// Sectors of a block.
const SECTORS: usize = BLOCK / SECTOR_BYTES;

/// A block's bytes: a part of what some write carried.
#[derive(Debug, Clone)]
struct Block {
    data: Arc<[u8]>,
    at: usize,
}

impl Block {
    fn bytes(&self) -> &[u8] {
        &self.data[self.at..self.at + BLOCK]
    }
}

/// A file's length and bytes. Absent blocks are zeros.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub(super) len: u64,
    blocks: Vec<Option<Block>>,
}

/// What a power cut made of a sector that was on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It holds what it held.
    Old,
    /// It holds what was written.
    New,
    /// It holds neither; the bytes follow from this number.
    Garbage(u64),
}

fn index(offset: u64) -> usize {
    usize::try_from(offset / BLOCK as u64).unwrap_or(usize::MAX)
}

impl Content {
    /// Fills `out` with what lies at `offset`; zeros where nothing was written.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) {
        for (block, out) in (index(offset)..).zip(out.chunks_mut(BLOCK)) {
            match self.blocks.get(block) {
                Some(Some(block)) => out.copy_from_slice(&block.bytes()[..out.len()]),
                Some(None) | None => out.fill(0),
            }
        }
    }

    /// Puts `len` bytes of `data`, from `from` on, at `offset`; all are whole blocks. The length is not changed.
    pub(super) fn put(&mut self, offset: u64, data: &Arc<[u8]>, from: usize, len: usize) {
        let first = index(offset);
        let end = first + len / BLOCK;
        if self.blocks.len() < end {
            self.blocks.resize(end, None);
        }
        for (place, at) in self.blocks[first..end]
            .iter_mut()
            .zip((from..).step_by(BLOCK))
        {
            *place = Some(Block {
                data: Arc::clone(data),
                at,
            });
        }
    }

    /// As [`Content::put`] of all of `data`, each sector as `fate` says.
    pub(super) fn put_torn(
        &mut self,
        offset: u64,
        data: &Arc<[u8]>,
        mut fate: impl FnMut(usize) -> Fate,
    ) {
        for block in 0..data.len() / BLOCK {
            let fates: [Fate; SECTORS] = std::array::from_fn(|i| fate(block * SECTORS + i));
            let (at, from) = (offset + (block * BLOCK) as u64, block * BLOCK);
            if fates == [Fate::New; SECTORS] {
                self.put(at, data, from, BLOCK);
            } else if fates != [Fate::Old; SECTORS] {
                let mut merged = vec![0; BLOCK];
                self.read(at, &mut merged);
                let new = data[from..from + BLOCK].chunks(SECTOR_BYTES);
                for ((fate, new), old) in fates.iter().zip(new).zip(merged.chunks_mut(SECTOR_BYTES))
                {
                    match *fate {
                        Fate::Old => {}
                        Fate::New => old.copy_from_slice(new),
                        Fate::Garbage(seed) => garble(seed, old),
                    }
                }
                self.put(at, &merged.into(), 0, BLOCK);
            }
        }
    }

    /// Cuts or extends, with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.forget(len, u64::MAX);
        }
        self.len = len;
    }

    /// Makes `from..to` read as zeros. Ragged edges are zeroed inside their blocks.
    pub(super) fn forget(&mut self, from: u64, to: u64) {
        let to = to.min((self.blocks.len() * BLOCK) as u64);
        let mut at = from;
        while at < to {
            let start = at - at % BLOCK as u64;
            let end = to.min(start + BLOCK as u64);
            if let Some(place) = self.blocks.get_mut(index(at)) {
                let part = usize::try_from(at - start).unwrap_or(0)
                    ..usize::try_from(end - start).unwrap_or(BLOCK);
                match place {
                    Some(block) if part != (0..BLOCK) => {
                        let mut bytes = block.bytes().to_vec();
                        bytes[part].fill(0);
                        *place = Some(Block {
                            data: bytes.into(),
                            at: 0,
                        });
                    }
                    _ => *place = None,
                }
            }
            at = end;
        }
    }

    /// Changes the bits of the byte at `offset` that are set in `bits`. False if nothing was written there.
    pub(super) fn flip(&mut self, offset: u64, bits: u8) -> bool {
        let Some(Some(block)) = self.blocks.get_mut(index(offset)) else {
            return false;
        };
        let mut bytes = block.bytes().to_vec();
        bytes[usize::try_from(offset % BLOCK as u64).unwrap_or(0)] ^= bits;
        *block = Block {
            data: bytes.into(),
            at: 0,
        };
        true
    }

    /// Bytes of blocks that were written.
    pub(super) fn allocated(&self) -> u64 {
        (self.blocks.iter().flatten().count() * BLOCK) as u64
    }

    /// How many bytes more a write of `len` at `offset` would allocate.
    pub(super) fn wanted(&self, offset: u64, len: usize) -> u64 {
        let first = index(offset);
        let missing = |block: &usize| !matches!(self.blocks.get(*block), Some(Some(_)));
        let blocks = (first..first + len / BLOCK).filter(missing).count();
        (blocks * BLOCK) as u64
    }

    /// Equal bytes and length, whatever blocks they lie in.
    pub(super) fn same(&self, other: &Self) -> bool {
        let blocks = self.blocks.len().max(other.blocks.len());
        let bytes = |content: &'_ Self, block: usize| match content.blocks.get(block) {
            Some(Some(block)) => Some(block.bytes().to_vec()),
            Some(None) | None => None,
        };
        let zero = |bytes: Option<Vec<u8>>| bytes.filter(|bytes| bytes.iter().any(|b| *b != 0));
        self.len == other.len
            && (0..blocks).all(|block| {
                let shared = match (self.blocks.get(block), other.blocks.get(block)) {
                    (Some(Some(a)), Some(Some(b))) => Arc::ptr_eq(&a.data, &b.data) && a.at == b.at,
                    _ => false,
                };
                shared || zero(bytes(self, block)) == zero(bytes(other, block))
            })
    }

    /// Adds all bytes to a running hash.
    pub(super) fn hash_into(&self, add: &mut dyn FnMut(&[u8])) {
        add(&self.len.to_le_bytes());
        for (number, block) in self.blocks.iter().enumerate() {
            if let Some(block) = block {
                add(&(number as u64).to_le_bytes());
                add(block.bytes());
            }
        }
    }
}

/// Bytes that are neither old nor new.
fn garble(seed: u64, bytes: &mut [u8]) {
    let mut word = seed | 1;
    for chunk in bytes.chunks_mut(8) {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
}
