//! Datasets of images: the types, one file per format, finding and fetching.
//!
//! - [`ImageSet`] and [`Dataset`] hold images and labels that were checked against each other.
//! - [`idx`], [`npz`], [`npy`] and [`cifar`] read the formats. Whatever a file's header claims is
//!   checked against what is there, and against a limit, before memory is taken.
//! - [`registry`] lists the datasets by name: where they come from, what identifies them.
//! - [`DataHome`] is the folder that holds them; [`find`] looks there, [`load`] reads what it finds,
//!   [`fetch`](fetch()) downloads what is missing.
//! - [`resize`] brings images to another size, [`augment`] changes them from epoch to epoch,
//!   [`Normalisation`] brings their channels to a common scale.
//! - [`quickstart`](quickstart()) is the small part of two datasets that the program carries with it.
//!
//! ```no_run
//! use taskweave::data::{self, DataHome};
//! let home = DataHome::resolve(None)?;
//! let (mnist, warnings) = data::load("mnist", &home)?;
//! for warning in warnings {
//!     eprintln!("warning: {warning}");
//! }
//! println!("{} training images", mnist.train.count());
//! # Ok::<(), data::DataError>(())
//! ```

pub mod augment;
pub mod cifar;
mod digest;
mod error;
mod fetch;
mod find;
mod home;
pub mod idx;
mod images;
mod load;
mod mapped;
mod normalisation;
pub mod npy;
pub mod npz;
mod own;
mod pictures;
mod pixels;
mod quickstart;
pub mod registry;
pub mod resize;

pub use error::{DataError, FormatError, Warning};
pub use fetch::{FailedSource, FetchOptions, Progress, Silent, fetch, load_or_fetch};
pub use find::{Located, Source, find};
pub use home::{DataHome, Origin};
pub use images::{Dataset, ImageSet, ImageSetError, ImageShape, PixelStore};
pub use load::{Checked, Part, check, load, load_located};
pub use mapped::MappedBytes;
pub use normalisation::{Normalisation, NormalisationError};
pub use own::read_own;
pub use pictures::{picture_files, read_pictures};
pub use pixels::read_images;
pub use quickstart::{SUBSET_DATASETS, SUBSET_TEST, SUBSET_TRAIN, quickstart, write_subset};
