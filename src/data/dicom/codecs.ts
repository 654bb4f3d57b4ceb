import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { firstLine, ImageError } from '../images/error.js'

/*
 * JPEG (8 to 16 bits, lossless too), JPEG-LS, JPEG 2000 and HTJ2K by libijg, CharLS, OpenJPEG and OpenJPH as dcmjs-codecs
 * compiles them to WebAssembly. Its module is used without its JavaScript: that initialises one instance for ever, while here
 * an instance is thrown away after a failure, and when its memory has grown.
 */

/** What is used of it; Node's types leave it to the browser's. */
declare namespace WebAssembly {
  class Module {
    constructor(bytes: Uint8Array)
  }
  class Instance {
    constructor(module: Module, imports: Readonly<Record<string, Readonly<Record<string, unknown>>>>)
    readonly exports: Readonly<Record<string, unknown>>
  }
  class RuntimeError extends Error {}
  interface Memory {
    readonly buffer: ArrayBuffer
  }
}

export type CodecName = 'DecodeJpeg' | 'DecodeJpegLs' | 'DecodeJpeg2000' | 'DecodeHtJpeg2000'

export interface CodedFrame {
  readonly rows: number
  readonly columns: number
  readonly samplesPerPixel: number
  readonly bitsAllocated: number
  readonly bitsStored: number
  readonly isSigned: boolean
}

type Setter = (context: number, value: number) => void
type Getter = (context: number) => number

/** What is used of the module. Contexts and parameters are addresses. */
interface Codecs extends Record<CodecName, (context: number, parameters: number) => void> {
  readonly memory: WebAssembly.Memory
  readonly _initialize: () => void
  readonly CreateCodecsContext: () => number
  readonly ReleaseCodecsContext: (context: number) => void
  readonly CreateDecoderParameters: () => number
  readonly ReleaseDecoderParameters: (parameters: number) => void
  readonly SetConvertColorspaceToRgb: Setter
  readonly SetColumns: Setter
  readonly SetRows: Setter
  readonly SetBitsAllocated: Setter
  readonly SetBitsStored: Setter
  readonly SetSamplesPerPixel: Setter
  readonly SetPixelRepresentation: Setter
  readonly SetPlanarConfiguration: Setter
  readonly SetPhotometricInterpretation: Setter
  readonly SetEncodedBufferSize: Setter
  readonly GetEncodedBuffer: Getter
  readonly GetDecodedBuffer: Getter
  readonly GetDecodedBufferSize: Getter
  readonly GetBitsAllocated: Getter
  readonly GetPlanarConfiguration: Getter
}

/** An instance that has more than it began with (256 MiB, touched only where used) and this is not kept: it never shrinks. */
const KEPT_GROWTH = 64 << 20
/** What decoding one image may take. */
const MAX_BYTES = 1 << 30
/** MONOCHROME2 and RGB in the module's list. */
const PHOTOMETRIC = { gray: 1, colour: 3 }

/** Tiles of a JPEG 2000 image: OpenJPEG leaves black what is missing, and says nothing. */
let tiles = { read: new Set<number>(), total: 0 }
let compiled: WebAssembly.Module | undefined
let kept: Codecs | undefined
let firstBytes = 0

function instantiate(): Codecs {
  compiled ??= new WebAssembly.Module(
    readFileSync(createRequire(import.meta.url).resolve('dcmjs-codecs/build/dcmjs-native-codecs.wasm')),
  )
  const memory = (): ArrayBuffer => codecs.memory.buffer
  const text = (address: number, length: number) => Buffer.from(memory(), address, length).toString('latin1')
  const success = () => 0
  const instance = new WebAssembly.Instance(compiled, {
    env: {
      // libijg goes on after these and makes up the rest of the image
      onCodecsInfo: (address: number, length: number) => {
        const message = text(address, length)
        if (/corrupt|premature/i.test(message)) throw new Error(message)
        const tile = /Header of tile (\d+) \/ (\d+) has been read/.exec(message)
        if (tile) tiles = { read: tiles.read.add(Number(tile[1])), total: Number(tile[2]) }
      },
      onCodecsTrace: success,
      onCodecsException: (address: number, length: number) => {
        throw new Error(text(address, length))
      },
      emscripten_notify_memory_growth: () => {
        if (memory().byteLength > MAX_BYTES) throw new Error('it takes too much memory')
      },
    },
    wasi_snapshot_preview1: {
      proc_exit: (status: number) => {
        throw new Error(`the decoder gave up (status ${status})`)
      },
      clock_time_get: (_clock: number, _precision: bigint, address: number) => {
        new DataView(memory()).setBigUint64(address, 0n, true)
        return 0
      },
      // what decoders print says less than what they throw
      fd_write: (_file: number, vectors: number, count: number, written: number) => {
        const view = new DataView(memory())
        let bytes = 0
        for (let i = 0; i < count; i += 1) bytes += view.getUint32(vectors + 8 * i + 4, true)
        view.setUint32(written, bytes, true)
        return 0
      },
      fd_close: success,
      fd_seek: success,
      environ_sizes_get: (count: number, size: number) => {
        const view = new DataView(memory())
        view.setUint32(count, 0, true)
        view.setUint32(size, 0, true)
        return 0
      },
      environ_get: success,
    },
  })
  const codecs = instance.exports as unknown as Codecs
  codecs._initialize()
  firstBytes = codecs.memory.buffer.byteLength
  return codecs
}

/** Samples as they were encoded: little-endian, interleaved unless `isPlanar`. */
export interface DecodedFrame {
  readonly bytes: Uint8Array
  readonly bitsAllocated: number
  readonly isPlanar: boolean
}

/**
 * Decodes a frame whose own header was compared with the file's before.
 * @throws ImageError where the codec gives up
 */
export function decodeFrame(codec: CodecName, encoded: Uint8Array, frame: CodedFrame): DecodedFrame {
  try {
    // only an instance that did its work is used again
    const codecs = kept ?? instantiate()
    kept = undefined
    const decoded = decodeWith(codecs, codec, encoded, frame)
    if (codecs.memory.buffer.byteLength <= firstBytes + KEPT_GROWTH) kept = codecs
    return decoded
  } catch (thrown) {
    const problem = thrown instanceof WebAssembly.RuntimeError ? 'the decoder gave up' : firstLine(thrown)
    throw new ImageError(`expected a frame that can be decoded, but it cannot: ${problem.replace(/^.*::/, '')}`)
  }
}

function decodeWith(codecs: Codecs, codec: CodecName, encoded: Uint8Array, frame: CodedFrame): DecodedFrame {
  const context = codecs.CreateCodecsContext()
  const parameters = codecs.CreateDecoderParameters()
  codecs.SetConvertColorspaceToRgb(parameters, 0)
  codecs.SetColumns(context, frame.columns)
  codecs.SetRows(context, frame.rows)
  codecs.SetBitsAllocated(context, frame.bitsAllocated)
  codecs.SetBitsStored(context, frame.bitsStored)
  codecs.SetSamplesPerPixel(context, frame.samplesPerPixel)
  codecs.SetPixelRepresentation(context, frame.isSigned ? 1 : 0)
  codecs.SetPlanarConfiguration(context, 0)
  codecs.SetPhotometricInterpretation(context, frame.samplesPerPixel === 1 ? PHOTOMETRIC.gray : PHOTOMETRIC.colour)
  codecs.SetEncodedBufferSize(context, encoded.length)
  new Uint8Array(codecs.memory.buffer).set(encoded, codecs.GetEncodedBuffer(context))
  tiles = { read: new Set(), total: 0 }
  codecs[codec](context, parameters)
  if (tiles.read.size < tiles.total) throw new Error(`it has ${tiles.read.size} of ${tiles.total} tiles`)
  const start = codecs.GetDecodedBuffer(context)
  const bytes = new Uint8Array(codecs.memory.buffer).slice(start, start + codecs.GetDecodedBufferSize(context))
  const decoded = {
    bytes,
    bitsAllocated: codecs.GetBitsAllocated(context),
    isPlanar: codecs.GetPlanarConfiguration(context) === 1,
  }
  codecs.ReleaseDecoderParameters(parameters)
  codecs.ReleaseCodecsContext(context)
  return decoded
}
