import { closeSync, mkdirSync, openSync, readdirSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import { createCRC32 } from 'hash-wasm'

/*
 * TensorBoard's event files: records of TFRecord with one Event each. Field numbers are those of tensorboard/compat/proto
 * (event.proto, summary.proto, tensor.proto); the bytes are what its own writer writes.
 */

/** CRC-32C of bytes. */
export type Checksum = (bytes: Uint8Array) => number

/** The polynomial of Castagnoli, its bits reversed. */
const CASTAGNOLI = 0x82f63b78

export async function crc32c(): Promise<Checksum> {
  const hasher = await createCRC32(CASTAGNOLI)
  return (bytes) => {
    const digest = hasher.init().update(bytes).digest('binary')
    return new DataView(digest.buffer, digest.byteOffset).getUint32(0)
  }
}

/** As TFRecord stores it, so that a checksum of data with checksums in it is a good one. */
export const masked = (crc: number): number => (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0

/** Length and its checksum, the data and its checksum: uint64, uint32, bytes, uint32, all little-endian. */
export function record(data: Uint8Array, checksum: Checksum): Uint8Array {
  const bytes = new Uint8Array(data.length + 16)
  const view = new DataView(bytes.buffer)
  view.setBigUint64(0, BigInt(data.length), true)
  view.setUint32(8, masked(checksum(bytes.subarray(0, 8))), true)
  bytes.set(data, 12)
  view.setUint32(12 + data.length, masked(checksum(data)), true)
  return bytes
}

/** A value of a summary, by its tag. */
export type SummaryValue =
  | { readonly tag: string; readonly scalar: number }
  | { readonly tag: string; readonly text: string }
  | { readonly tag: string; readonly png: Uint8Array; readonly width: number; readonly height: number }

export type EventContent =
  | { readonly fileVersion: string }
  | { readonly summary: readonly SummaryValue[] }
  /** The run begins at the event's step: readers forget what they saw of this step and of later ones. */
  | 'session-start'

type Fields = (writer: BinaryWriter) => void

function message(fields: Fields): Uint8Array {
  const writer = new BinaryWriter()
  fields(writer)
  return writer.finish()
}

const bytesField = (writer: BinaryWriter, field: number, value: Uint8Array) =>
  writer.tag(field, WireType.LengthDelimited).bytes(value)
const textField = (writer: BinaryWriter, field: number, value: string) =>
  writer.tag(field, WireType.LengthDelimited).string(value)
const countField = (writer: BinaryWriter, field: number, value: number) =>
  writer.tag(field, WireType.Varint).int64(value)

const DT_STRING = 7
const COLORSPACE_GRAY = 1

function summaryValue(value: SummaryValue): Uint8Array {
  return message((writer) => {
    textField(writer, 1, value.tag)
    if ('scalar' in value) writer.tag(2, WireType.Bit32).float(value.scalar)
    if ('png' in value) {
      const image = message((fields) => {
        countField(fields, 1, value.height)
        countField(fields, 2, value.width)
        countField(fields, 3, COLORSPACE_GRAY)
        bytesField(fields, 4, value.png)
      })
      bytesField(writer, 4, image)
    }
    if ('text' in value) {
      const shape = message((fields) =>
        bytesField(
          fields,
          2,
          message((size) => countField(size, 1, 1)),
        ),
      )
      const tensor = message((fields) => {
        countField(fields, 1, DT_STRING)
        bytesField(fields, 2, shape)
        textField(fields, 8, value.text)
      })
      bytesField(writer, 8, tensor)
      const plugin = message((fields) => textField(fields, 1, 'text'))
      bytesField(
        writer,
        9,
        message((fields) => bytesField(fields, 1, plugin)),
      )
    }
  })
}

/** @param seconds since 1970 */
export function encodeEvent(seconds: number, step: number, content: EventContent): Uint8Array {
  return message((writer) => {
    writer.tag(1, WireType.Bit64).double(seconds)
    if (step !== 0) countField(writer, 2, step)
    if (content === 'session-start') {
      const session = message((fields) => countField(fields, 1, 1))
      bytesField(writer, 7, session)
    } else if ('fileVersion' in content) {
      textField(writer, 3, content.fileVersion)
    } else {
      const summary = message((fields) => {
        for (const value of content.summary) bytesField(fields, 1, summaryValue(value))
      })
      bytesField(writer, 5, summary)
    }
  })
}

/** A new event file in a folder of one run. */
export class TfEventFile {
  readonly path: string
  readonly #file: number

  constructor(
    folder: string,
    private readonly checksum: Checksum,
    private readonly now: () => number = () => Date.now() / 1000,
  ) {
    mkdirSync(folder, { recursive: true })
    // readers take the files by name: by time, and by number within a second
    const number = readdirSync(folder).filter((name) => name.includes('tfevents')).length
    const name = `events.out.tfevents.${Math.floor(now())}.cleft.${String(number).padStart(6, '0')}`
    this.path = join(folder, name)
    this.#file = openSync(this.path, 'wx')
    this.add(0, { fileVersion: 'brain.Event:2' })
  }

  /** Written at once, whole: a kill between two events loses none. */
  add(step: number, content: EventContent): void {
    const bytes = record(encodeEvent(this.now(), step, content), this.checksum)
    for (let done = 0; done < bytes.length; ) done += writeSync(this.#file, bytes, done)
  }

  close(): void {
    closeSync(this.#file)
  }
}
