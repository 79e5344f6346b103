//! Reading GGUF files that nobody vouches for.

use std::borrow::Cow;
use std::io::{Read, Seek, SeekFrom};
use std::panic::catch_unwind;

use candle_core::CpuStorage;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};

use crate::error::LoadError;
use crate::kernel::PackedMatrix;

/// Bytes of a tensor that are read and converted at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// An open GGUF file: its keys, and its tensors on demand.
///
/// Sizes are checked against the file's length before anything is allocated for them.
pub(crate) struct Gguf<R> {
    content: Content,
    reader: R,
    file_bytes: u64,
}

impl<R: Read + Seek> Gguf<R> {
    pub(crate) fn open(mut reader: R) -> Result<Self, LoadError> {
        let file_bytes = reader.seek(SeekFrom::End(0))?;
        reader.rewind()?;
        // The parser checks lengths but trusts some numbers (an alignment of zero divides by
        // zero); a file must not be able to end the process.
        let content = catch_unwind(std::panic::AssertUnwindSafe(|| Content::read(&mut reader)))
            .map_err(|_| malformed("its header is inconsistent"))?
            .map_err(|error| malformed(first_line(&error)))?;
        Ok(Self {
            content,
            reader,
            file_bytes,
        })
    }

    pub(crate) fn string(&self, key: &str) -> Result<Option<String>, LoadError> {
        self.optional(key, "is not a string", |value| match value {
            Value::String(text) => Some(text.clone()),
            _ => None,
        })
    }

    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>, LoadError> {
        self.optional(key, "is not a boolean", |value| value.to_bool().ok())
    }

    pub(crate) fn float(&self, key: &str) -> Result<Option<f64>, LoadError> {
        self.optional(key, "is not a finite number", |value| match value {
            Value::F32(value) => Some(f64::from(*value)).filter(|value| value.is_finite()),
            Value::F64(value) => Some(*value).filter(|value| value.is_finite()),
            _ => None,
        })
    }

    pub(crate) fn integer(&self, key: &str) -> Result<Option<u32>, LoadError> {
        self.optional(key, "is not a 32-bit unsigned integer", as_u32)
    }

    /// An array, of which each element must convert; empty if the key is absent.
    pub(crate) fn array<T>(
        &self,
        key: &str,
        problem: &str,
        convert: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<T>, LoadError> {
        let array = self.optional(key, problem, |value| match value {
            Value::Array(values) => values.iter().map(&convert).collect(),
            _ => None,
        })?;
        Ok(array.unwrap_or_default())
    }

    fn optional<T>(
        &self,
        key: &str,
        problem: &str,
        convert: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, LoadError> {
        let Some(value) = self.content.metadata.get(key) else {
            return Ok(None);
        };
        convert(value).map(Some).ok_or_else(|| LoadError::BadKey {
            key: key.to_owned(),
            problem: problem.to_owned(),
        })
    }

    pub(crate) fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.content.tensor_infos.keys().map(String::as_str)
    }

    pub(crate) fn has_tensor(&self, tensor: &str) -> bool {
        self.content.tensor_infos.contains_key(tensor)
    }

    /// A tensor's dimensions, the outermost first.
    pub(crate) fn dimensions(&self, tensor: &str) -> Result<&[usize], LoadError> {
        let info = self.content.tensor_infos.get(tensor);
        let info = info.ok_or_else(|| LoadError::MissingTensor(tensor.to_owned()))?;
        Ok(info.shape.dims())
    }

    /// A one-dimensional tensor of finite numbers.
    pub(crate) fn vector(&mut self, tensor: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        let mut vector = Vec::new();
        self.rows(tensor, &[len], |_, values| {
            vector.extend_from_slice(values);
            Ok(())
        })?;
        if vector.iter().all(|value: &f32| value.is_finite()) {
            Ok(vector)
        } else {
            Err(LoadError::NotFinite(tensor.to_owned()))
        }
    }

    /// Several matrices with equal columns, packed as one: their rows follow each other.
    pub(crate) fn matrix(
        &mut self,
        tensors: &[(String, usize)],
        columns: usize,
    ) -> Result<PackedMatrix, LoadError> {
        for (tensor, rows) in tensors {
            self.locate(tensor, &[*rows, columns])?;
        }
        let mut matrix = PackedMatrix::zeros(tensors.iter().map(|(_, rows)| rows).sum(), columns);
        let mut first = 0;
        for (tensor, rows) in tensors {
            self.rows(tensor, &[*rows, columns], |row, values| {
                matrix
                    .set_row(first + row, values)
                    .map_err(|_| LoadError::NotFinite(tensor.clone()))
            })?;
            first += rows;
        }
        Ok(matrix)
    }

    /// Checks a tensor's shape and that its bytes are in the file; returns where they begin.
    fn locate(&self, tensor: &str, shape: &[usize]) -> Result<(u64, GgmlDType, usize), LoadError> {
        let dimensions = self.dimensions(tensor)?;
        let info = &self.content.tensor_infos[tensor];
        let row_blocks = shape
            .last()
            .map(|columns| columns / info.ggml_dtype.block_size());
        if dimensions != shape {
            return Err(LoadError::TensorShape {
                tensor: tensor.to_owned(),
                got: dimensions.to_vec(),
                expected: shape.to_vec(),
            });
        }
        let row_bytes = row_blocks.unwrap_or(0) * info.ggml_dtype.type_size();
        if row_bytes * info.ggml_dtype.block_size()
            != shape
                .last()
                .map_or(0, |columns| columns * info.ggml_dtype.type_size())
        {
            return Err(malformed(format!(
                "the rows of tensor {tensor:?} are not whole {:?} blocks",
                info.ggml_dtype
            )));
        }
        let rows: usize = shape[..shape.len() - 1].iter().product();
        let start = self.content.tensor_data_offset.saturating_add(info.offset);
        let end = start.saturating_add((rows as u64).saturating_mul(row_bytes as u64));
        if end > self.file_bytes {
            return Err(LoadError::Truncated {
                tensor: tensor.to_owned(),
                end,
                file_bytes: self.file_bytes,
            });
        }
        Ok((start, info.ggml_dtype, row_bytes))
    }

    /// Calls `each` with every row of a tensor as floats.
    fn rows(
        &mut self,
        tensor: &str,
        shape: &[usize],
        mut each: impl FnMut(usize, &[f32]) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        let (start, dtype, row_bytes) = self.locate(tensor, shape)?;
        let columns = shape[shape.len() - 1];
        let rows: usize = shape[..shape.len() - 1].iter().product();
        if row_bytes == 0 {
            return Ok(());
        }
        self.reader.seek(SeekFrom::Start(start))?;
        let chunk_rows = (CHUNK_BYTES / row_bytes).max(1);
        for first in (0..rows).step_by(chunk_rows) {
            let count = chunk_rows.min(rows - first);
            let mut bytes = vec![0; count * row_bytes];
            self.reader.read_exact(&mut bytes)?;
            let values = dtype
                .from_data(Cow::Owned(bytes))
                .dequantize(count * columns)
                .map_err(|error| malformed(first_line(&error)))?;
            let CpuStorage::F32(values) = values else {
                return Err(malformed(format!("{dtype:?} is not a type of weights")));
            };
            for (row, values) in (first..).zip(values.chunks_exact(columns)) {
                each(row, values)?;
            }
        }
        Ok(())
    }
}

pub(crate) fn as_u32(value: &Value) -> Option<u32> {
    match value {
        Value::I8(value) => u32::try_from(*value).ok(),
        Value::I16(value) => u32::try_from(*value).ok(),
        Value::I32(value) => u32::try_from(*value).ok(),
        Value::I64(value) => u32::try_from(*value).ok(),
        value => value.to_u64().ok().and_then(|value| value.try_into().ok()),
    }
}

fn malformed(detail: impl Into<String>) -> LoadError {
    LoadError::Malformed {
        detail: detail.into(),
    }
}

/// An error's message without the backtrace that the library may append.
fn first_line(error: &candle_core::Error) -> String {
    let text = error.to_string();
    match text.lines().next().unwrap_or_default() {
        // What a reader says at the end of a file.
        "failed to fill whole buffer" => "it ends within its header".to_owned(),
        line => line.to_owned(),
    }
}
