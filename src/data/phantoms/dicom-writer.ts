/*
 * Writes DICOM files: explicit VR, little endian (DICOM PS3.10, PS3.5). Only what phantoms need, since dcmjs, the one kept
 * writer for JavaScript, has no types and brings eleven megabytes and a polyfill's install script for these few lines.
 */

/** Representations that are written as text. */
const TEXT = ['AE', 'AS', 'CS', 'DA', 'DS', 'IS', 'LO', 'LT', 'PN', 'SH', 'ST', 'TM', 'UI', 'UT'] as const

/** An element: its tag as a number of 32 bits, its representation and its value; several strings are joined by '\'. */
export type DicomElement =
  | readonly [tag: number, vr: (typeof TEXT)[number], value: string]
  | readonly [tag: number, vr: 'US', value: number]

export const EXPLICIT_LITTLE_ENDIAN = '1.2.840.10008.1.2.1'
export const JPEG_BASELINE = '1.2.840.10008.1.2.4.50'

/** PixelData as it is stored: one fragment in an encapsulated syntax, or all pixels in 16 bits. */
export type DicomPixels =
  | { readonly syntax: typeof JPEG_BASELINE; readonly frame: Buffer }
  | { readonly syntax: typeof EXPLICIT_LITTLE_ENDIAN; readonly words: Uint16Array }

/** Of this package's writer: made from a UUID, as 2.25 UIDs are. */
const IMPLEMENTATION = '2.25.185262109486712930118435910274561048223'

function padded(text: string, vr: string): Buffer {
  const bytes = Buffer.from(text, 'latin1')
  if (bytes.length % 2 === 0) return bytes
  return Buffer.concat([bytes, Buffer.from(vr === 'UI' ? '\0' : ' ', 'latin1')])
}

function element(tag: number, vr: string, value: Buffer, length = value.length): Buffer {
  const long = vr === 'OB' || vr === 'OW' || vr === 'UT'
  const header = Buffer.alloc(long ? 12 : 8)
  header.writeUInt16LE(tag >>> 16, 0)
  header.writeUInt16LE(tag & 0xffff, 2)
  header.write(vr, 4, 'latin1')
  if (long) header.writeUInt32LE(length, 8)
  else header.writeUInt16LE(length, 6)
  return Buffer.concat([header, value])
}

function encode([tag, vr, value]: DicomElement): Buffer {
  if (typeof value === 'string') return element(tag, vr, padded(value, vr))
  const number = Buffer.alloc(2)
  number.writeUInt16LE(value)
  return element(tag, vr, number)
}

function item(bytes: Buffer): Buffer {
  const header = Buffer.alloc(8)
  header.writeUInt16LE(0xfffe, 0)
  header.writeUInt16LE(0xe000, 2)
  header.writeUInt32LE(bytes.length + (bytes.length % 2), 4)
  return Buffer.concat([header, bytes, Buffer.alloc(bytes.length % 2)])
}

function pixelData(pixels: DicomPixels): Buffer {
  if ('words' in pixels) {
    const bytes = Buffer.alloc(2 * pixels.words.length)
    for (const [index, word] of pixels.words.entries()) bytes.writeUInt16LE(word, 2 * index)
    return element(0x7fe00010, 'OW', bytes)
  }
  // An empty table of offsets, the one frame, the end.
  const end = Buffer.from([0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0])
  const fragments = Buffer.concat([item(Buffer.alloc(0)), item(pixels.frame), end])
  return element(0x7fe00010, 'OB', fragments, 0xffffffff)
}

/**
 * A whole file.
 *
 * @param elements of the data set without PixelData; SOP class (0008,0016) and instance (0008,0018) among them
 */
export function dicomFile(elements: readonly DicomElement[], pixels: DicomPixels): Buffer {
  const text = (tag: number): string => {
    const value = elements.find((each) => each[0] === tag)?.[2]
    if (typeof value !== 'string')
      throw new Error(`dicomFile: expected the element ${tag.toString(16)}, and it is missing`)
    return value
  }
  const meta = Buffer.concat([
    element(0x00020001, 'OB', Buffer.from([0, 1])),
    encode([0x00020002, 'UI', text(0x00080016)]),
    encode([0x00020003, 'UI', text(0x00080018)]),
    encode([0x00020010, 'UI', pixels.syntax]),
    encode([0x00020012, 'UI', IMPLEMENTATION]),
  ])
  const length = Buffer.alloc(4)
  length.writeUInt32LE(meta.length)
  const sorted = [...elements].sort((first, second) => first[0] - second[0])
  return Buffer.concat([
    Buffer.alloc(128),
    Buffer.from('DICM'),
    element(0x00020000, 'UL', length),
    meta,
    ...sorted.map(encode),
    pixelData(pixels),
  ])
}
