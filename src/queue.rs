//! A queue of bytes whose limits count the memory that it holds.
//!
//! Bytes that wait for a reader are copied into blocks of our own. So a piece never keeps the larger read
//! buffer alive that it was cut from, a million pieces of one byte cost what one piece of a million bytes
//! costs, and what is counted is what is allocated. Only what has to wait is copied.

use std::collections::VecDeque;
use std::io::IoSlice;

/// Bytes that wait, in order.
#[derive(Debug, Default)]
pub(crate) struct ByteQueue {
    blocks: VecDeque<Block>,
    held: usize,
}

impl ByteQueue {
    /// Appends a copy of `bytes`. Returns how many more bytes of memory are held now.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> usize {
        let before = self.held;
        while !bytes.is_empty() {
            let room = self.blocks.back().map_or(0, Block::room);
            if room == 0 {
                // As much again as there is: few blocks for much, and little for a few bytes.
                let capacity = bytes.len().max(self.held).clamp(MIN_BLOCK, MAX_BLOCK);
                let block = Block::new(capacity);
                self.held += block.held();
                self.blocks.push_back(block);
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if let Some(block) = self.blocks.back_mut() {
                block.bytes.extend_from_slice(now);
            }
            bytes = later;
        }
        self.held - before
    }

    /// Bytes of memory that are held, those of batches not included.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Returns whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Takes what one write should take, in order; empty if nothing waits. The memory goes with it:
    /// [`Batch::advance`] returns how much of it is free again.
    pub(crate) fn take(&mut self) -> Batch {
        let mut batch = VecDeque::new();
        let mut length = 0;
        while let Some(next) = self.blocks.front() {
            length += next.waiting().len();
            if !batch.is_empty() && (length > BATCH || batch.len() == BATCH_BLOCKS) {
                break;
            }
            self.held -= next.held();
            batch.extend(self.blocks.pop_front());
        }
        if self.blocks.is_empty() {
            self.blocks = VecDeque::new();
        }
        Batch { blocks: batch }
    }
}

/// Bytes on their way to the reader.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    blocks: VecDeque<Block>,
}

impl Batch {
    /// Bytes still to be written, for one system call.
    pub(crate) fn slices(&self) -> Vec<IoSlice<'_>> {
        self.blocks.iter().map(|block| IoSlice::new(block.waiting())).collect()
    }

    /// The first `count` bytes have been written. Returns how many bytes of memory are free again.
    pub(crate) fn advance(&mut self, mut count: usize) -> usize {
        let mut freed = 0;
        while let Some(block) = self.blocks.front_mut() {
            let step = count.min(block.waiting().len());
            block.written += step;
            count -= step;
            if !block.waiting().is_empty() {
                break;
            }
            freed += block.held();
            self.blocks.pop_front();
        }
        freed
    }

    /// Returns whether all has been written.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Bytes of memory that are held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.blocks.iter().map(Block::held).sum()
    }
}

/// One allocation, which never grows.
#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    written: usize,
}

impl Block {
    fn new(capacity: usize) -> Block {
        Block { bytes: Vec::with_capacity(capacity), written: 0 }
    }

    fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    fn waiting(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    fn held(&self) -> usize {
        self.bytes.capacity() + BLOCK_COST
    }
}

/// The smallest block, in bytes: a message of the agent's.
const MIN_BLOCK: usize = 1 << 10;
/// The largest block, in bytes.
const MAX_BLOCK: usize = 64 << 10;
/// Memory of a block in addition to its bytes: its cell, in a deque that may be half empty, and the allocator's header.
const BLOCK_COST: usize = 2 * size_of::<Block>() + 16;
/// Bytes that are written at once.
const BATCH: usize = 64 << 10;
/// Blocks that are written at once; fewer than any system's IOV_MAX.
const BATCH_BLOCKS: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(batch: &Batch) -> Vec<u8> {
        batch.slices().iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    /// Allocated memory, block by block.
    fn allocated(queue: &ByteQueue) -> usize {
        queue.blocks.iter().map(Block::held).sum()
    }

    #[test]
    fn a_million_pieces_of_one_byte_cost_what_one_piece_costs() {
        let (mut pieces, mut whole) = (ByteQueue::default(), ByteQueue::default());
        for _ in 0..1_000_000 {
            pieces.push(b"x");
        }
        whole.push(&vec![b'x'; 1_000_000]);
        for queue in [&pieces, &whole] {
            assert_eq!(queue.held(), allocated(queue));
            assert!(queue.held() < 1_070_000, "{} bytes", queue.held());
            assert!(queue.blocks.len() < 40, "{} blocks", queue.blocks.len());
        }
    }

    #[test]
    fn a_few_bytes_cost_little_and_nothing_costs_nothing() {
        let mut queue = ByteQueue::default();
        assert_eq!(queue.push(b""), 0);
        assert!(queue.is_empty() && queue.held() == 0 && queue.take().is_empty());
        let cost = queue.push(b"x");
        assert!(cost == queue.held() && cost < 1_200, "{cost} bytes");
        assert_eq!(queue.push(b"y"), 0, "there is room in the block");
        let mut batch = queue.take();
        assert_eq!((queue.held(), queue.blocks.capacity()), (0, 0));
        assert_eq!(batch.advance(1), 0, "half of the block still waits");
        assert_eq!(batch.advance(1), cost);
        assert!(batch.is_empty());
    }

    proptest! {
        /// Whatever the pieces, batches and writes: all bytes in order, all memory counted and freed.
        #[test]
        fn any_course(steps in proptest::collection::vec((0_usize..200_000, 0_usize..9, 0_usize..90_000), 1..40)) {
            let (mut queue, mut batch) = (ByteQueue::default(), Batch::default());
            let (mut pushed, mut written) = (Vec::new(), Vec::new());
            let mut held = 0;
            for (length, small, write) in steps {
                // Long pieces now and then, many small ones in between.
                let length = if small == 0 { length } else { length % 700 };
                let piece: Vec<u8> = (0..length).map(|at| ((pushed.len() + at) % 251) as u8).collect();
                held += queue.push(&piece);
                pushed.extend(piece);
                if batch.is_empty() {
                    batch = queue.take();
                }
                let available = bytes(&batch);
                let count = write.min(available.len());
                written.extend_from_slice(&available[..count]);
                held -= batch.advance(count);
                prop_assert_eq!(held, queue.held() + batch.held());
                prop_assert_eq!(queue.held(), allocated(&queue));
                // The last block may be empty but for a byte.
                prop_assert!(queue.held() <= 2 * (pushed.len() - written.len()) + MAX_BLOCK + 2 * BLOCK_COST);
            }
            while !batch.is_empty() || !queue.is_empty() {
                if batch.is_empty() {
                    batch = queue.take();
                }
                let available = bytes(&batch);
                prop_assert!(available.len() <= BATCH + MAX_BLOCK);
                held -= batch.advance(available.len());
                written.extend(available);
            }
            prop_assert_eq!(held, 0);
            prop_assert!(written == pushed);
        }
    }
}
