/** How pixels are encoded: who decodes them. */
export type Encoding = 'native' | 'rle' | 'jpeg' | 'jpeg-ls' | 'jpeg-2000' | 'htj2k'

export interface TransferSyntax {
  readonly name: string
  readonly encoding: Encoding
  readonly isBigEndian?: true
  readonly isDeflated?: true
}

export const IMPLICIT_LITTLE_ENDIAN = '1.2.840.10008.1.2'
export const EXPLICIT_LITTLE_ENDIAN = '1.2.840.10008.1.2.1'
export const EXPLICIT_BIG_ENDIAN = '1.2.840.10008.1.2.2'

/** DICOM PS3.6, table A-1. */
export const transferSyntaxes: ReadonlyMap<string, TransferSyntax> = new Map<string, TransferSyntax>([
  [IMPLICIT_LITTLE_ENDIAN, { name: 'Implicit VR Little Endian', encoding: 'native' }],
  [EXPLICIT_LITTLE_ENDIAN, { name: 'Explicit VR Little Endian', encoding: 'native' }],
  ['1.2.840.10008.1.2.1.99', { name: 'Deflated Explicit VR Little Endian', encoding: 'native', isDeflated: true }],
  [EXPLICIT_BIG_ENDIAN, { name: 'Explicit VR Big Endian', encoding: 'native', isBigEndian: true }],
  ['1.2.840.10008.1.2.4.50', { name: 'JPEG Baseline', encoding: 'jpeg' }],
  ['1.2.840.10008.1.2.4.51', { name: 'JPEG Extended', encoding: 'jpeg' }],
  ['1.2.840.10008.1.2.4.57', { name: 'JPEG Lossless, Process 14', encoding: 'jpeg' }],
  ['1.2.840.10008.1.2.4.70', { name: 'JPEG Lossless, Process 14, Selection Value 1', encoding: 'jpeg' }],
  ['1.2.840.10008.1.2.4.80', { name: 'JPEG-LS Lossless', encoding: 'jpeg-ls' }],
  ['1.2.840.10008.1.2.4.81', { name: 'JPEG-LS Near-lossless', encoding: 'jpeg-ls' }],
  ['1.2.840.10008.1.2.4.90', { name: 'JPEG 2000 Lossless', encoding: 'jpeg-2000' }],
  ['1.2.840.10008.1.2.4.91', { name: 'JPEG 2000', encoding: 'jpeg-2000' }],
  ['1.2.840.10008.1.2.4.201', { name: 'High-Throughput JPEG 2000 Lossless', encoding: 'htj2k' }],
  ['1.2.840.10008.1.2.4.202', { name: 'High-Throughput JPEG 2000 with RPCL Lossless', encoding: 'htj2k' }],
  ['1.2.840.10008.1.2.4.203', { name: 'High-Throughput JPEG 2000', encoding: 'htj2k' }],
  ['1.2.840.10008.1.2.5', { name: 'RLE Lossless', encoding: 'rle' }],
])
