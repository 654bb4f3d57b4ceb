import { BinaryReader } from '@bufbuild/protobuf/wire'
import { type Checksum, masked } from '../../../src/train/log/tfevents.js'

/** The data of the records of a TFRecord file. Throws where a checksum or a length is wrong. */
export function readRecords(file: Buffer, checksum: Checksum): Buffer[] {
  const records: Buffer[] = []
  for (let at = 0; at < file.length; ) {
    const length = Number(file.readBigUInt64LE(at))
    const data = file.subarray(at + 12, at + 12 + length)
    const isGood =
      data.length === length &&
      file.readUInt32LE(at + 8) === masked(checksum(file.subarray(at, at + 8))) &&
      file.readUInt32LE(at + 12 + length) === masked(checksum(data))
    if (!isGood) throw new Error(`the record at byte ${at} is broken`)
    records.push(data)
    at += length + 16
  }
  return records
}

export interface ReadEvent {
  step: number
  isSessionStart: boolean
  /** By tag; undefined for what is no scalar. */
  values: Map<string, number | undefined>
}

/** Calls back for each field of a protobuf message. */
function fields(data: Uint8Array, take: (field: number, reader: BinaryReader) => boolean): void {
  const reader = new BinaryReader(data)
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag()
    if (!take(field, reader)) reader.skip(type)
  }
}

export function readEvent(data: Uint8Array): ReadEvent {
  const event: ReadEvent = { step: 0, isSessionStart: false, values: new Map() }
  const value = (bytes: Uint8Array) => {
    let tag = ''
    let scalar: number | undefined
    fields(bytes, (field, reader) => {
      if (field === 1) tag = reader.string()
      else if (field === 2) scalar = reader.float()
      else return false
      return true
    })
    event.values.set(tag, scalar)
  }
  fields(data, (field, reader) => {
    if (field === 2) event.step = Number(reader.int64())
    else if (field === 7) event.isSessionStart = reader.bytes().length > 0
    else if (field === 5) {
      fields(reader.bytes(), (_, inner) => {
        value(inner.bytes())
        return true
      })
    } else return false
    return true
  })
  return event
}
