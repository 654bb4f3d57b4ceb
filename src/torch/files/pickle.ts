import type { Complex, DType } from '../types.js'
import { isSizes, storageClasses, torchDtypes } from './dtypes.js'
import { quote, WeightsFileError } from './error.js'

/*
 * A reader of Python's pickles that runs nothing. A pickle is a program for a stack machine, and two of its instructions
 * (GLOBAL and REDUCE) import and call whatever they name: in Python, loading an untrusted one is running it. Here GLOBAL
 * makes a PickleStub that holds the two names, and REDUCE knows a short table of calls that it does itself (containers,
 * numbers, tensors over storages); any other becomes a stub with its arguments.
 *
 * Instructions: Lib/pickletools.py of CPython; protocols 0 to 5. How torch saves tensors: torch/serialization.py,
 * torch/_utils.py, torch/_weights_only_unpickler.py.
 */

/** What a pickle holds. Lists and tuples are arrays, dicts are Maps (their keys may be numbers). */
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Complex
  | PickleValue[]
  | Map<PickleValue, PickleValue>
  | Set<PickleValue>
  | PickleStub
  | TensorRef
  | StorageRef

/** A Python object, function or class that is not built: its names, and what the pickle would have done with it. */
export class PickleStub {
  /** The keyword arguments of a constructor, where it had any. */
  kwargs: PickleValue = null
  /** What the object would have been given to restore itself: its attributes in a Map, mostly. */
  state: PickleValue = null
  /** What would have been appended to it (a list's subclass). */
  items: PickleValue[] | null = null
  /** What would have been set on it by key (a dict's subclass). */
  entries: Map<PickleValue, PickleValue> | null = null

  /** @param args what it would have been called with; null for the function or class itself */
  constructor(
    readonly module: string,
    readonly name: string,
    readonly args: PickleValue[] | null,
  ) {}
}

/** A storage that a pickle names: the bytes are elsewhere in the file. */
export class StorageRef {
  constructor(
    /** null: bytes without a type (UntypedStorage) */
    readonly dtype: DType | null,
    readonly key: string,
    /** elements, or bytes where there is no dtype */
    readonly size: number,
    /** Part of the storage, in elements (files from before PyTorch 0.4). */
    readonly view: { readonly offset: number; readonly size: number } | null,
  ) {}
}

/** A tensor that a pickle describes. Offset and strides count elements. */
export class TensorRef {
  constructor(
    /** Bytes that are in the pickle itself are a NumPy array's. */
    readonly storage: StorageRef | Uint8Array,
    readonly dtype: DType,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
    readonly requiresGrad: boolean,
  ) {}
}

/** Default of what one file's pickles may take of memory. */
export const MAX_PICKLE_MEMORY = 256 << 20
/** Default of how long a file's pickles may be. Tensors are not in there. */
export const MAX_PICKLE_BYTES = 256 << 20

/** A pickle's bytes. Where they are in front of a file, more are read as they are wanted. */
export class PickleSource {
  position = 0

  /** @param more gives bytes from the beginning to at least `end`, or null where there are not so many */
  constructor(
    private bytes: Buffer,
    private readonly more?: (end: number) => Buffer | null,
  ) {}

  /** Passes `count` bytes, and says where they begin; -1 where there are fewer. */
  private pass(count: number): number {
    const start = this.position
    const end = start + count
    if (end > this.bytes.length) {
      const more = this.more?.(end) ?? null
      if (more === null || more.length < end) return -1
      this.bytes = more
    }
    this.position = end
    return start
  }

  /** `count` bytes, not copied; null where there are fewer. */
  take(count: number): Buffer | null {
    const start = this.pass(count)
    return start < 0 ? null : this.bytes.subarray(start, start + count)
  }

  /** One byte, or -1 at the end. */
  byte(): number {
    const start = this.pass(1)
    return start < 0 ? -1 : (this.bytes[start] as number)
  }

  /** A line without its end, at most `limit` bytes; null where there is none. */
  line(limit: number): Buffer | null {
    const start = this.position
    for (let end = start; end < start + limit; end += 1) {
      const code = this.byte()
      if (code < 0) return null
      if (code === 0x0a) return this.bytes.subarray(start, end)
    }
    return null
  }
}

export interface UnpickleOptions {
  /** The file, for messages. */
  path: string
  /** What a persistent id stands for. Without it, an error. */
  persistent?: (id: PickleValue) => PickleValue
  /** About how many bytes of memory the result may take. Default: 256 MiB. */
  maxMemory?: number
}

/**
 * Reads one pickle, to its STOP. Nothing is imported or called, whatever it says. Values are the ones of
 * {@link PickleValue}; integers beyond 2^53 are bigints; `torch.float32` is the string 'float32', `torch.device` a string,
 * `torch.Size` an array.
 * @throws WeightsFileError where it ends early, takes what is not there, has an unknown instruction, or takes too much
 * memory
 */
export function unpickle(source: PickleSource, options: UnpickleOptions): PickleValue {
  return new Unpickler(source, options).run()
}

/** Longest line of the text protocol (0): names, numbers, quoted strings. */
const MAX_LINE = 1 << 24
/** Python's own limit for numbers in words: reading them takes time with the square of their length. */
const MAX_DIGITS = 4300

class Unpickler {
  private readonly stack: PickleValue[] = []
  /** Where in the stack each MARK is. */
  private readonly marks: number[] = []
  private readonly memo = new Map<number, PickleValue>()
  private memory: number
  private instruction = 0

  constructor(
    private readonly source: PickleSource,
    private readonly options: UnpickleOptions,
  ) {
    this.memory = options.maxMemory ?? MAX_PICKLE_MEMORY
  }

  private refuse(problem: string): WeightsFileError {
    const { path } = this.options
    return new WeightsFileError(
      path,
      `${problem} (byte ${this.instruction} of a pickle in '${path}'); the file is damaged or no checkpoint, get it again`,
    )
  }

  /** Every instruction pays for what it makes, so that a small file cannot fill the memory. */
  private pay(bytes: number): void {
    this.memory -= bytes
    if (this.memory < 0) {
      throw new WeightsFileError(
        this.options.path,
        `expected the objects in '${this.options.path}' to take ${this.options.maxMemory ?? MAX_PICKLE_MEMORY} bytes of memory ` +
          'at most, but they take more; if you trust the file, raise maxMemory',
      )
    }
  }

  private push(value: PickleValue, bytes = 8): void {
    this.pay(bytes)
    this.stack.push(value)
  }

  private pop(): PickleValue {
    // what is below a MARK belongs to an instruction further out
    if (this.stack.length <= (this.marks.at(-1) ?? 0))
      throw this.refuse('expected a value on the stack, but it is empty')
    return this.stack.pop() as PickleValue
  }

  private top(): PickleValue {
    if (this.stack.length <= (this.marks.at(-1) ?? 0))
      throw this.refuse('expected a value on the stack, but it is empty')
    return this.stack.at(-1) as PickleValue
  }

  private popToMark(): PickleValue[] {
    const mark = this.marks.pop()
    if (mark === undefined) throw this.refuse('expected a MARK on the stack, but there is none')
    return this.stack.splice(mark)
  }

  private take(count: number): Buffer {
    const bytes = this.source.take(count)
    if (bytes === null) throw this.refuse(`expected ${count} more bytes, but the pickle ends`)
    return bytes
  }

  private byte(): number {
    const byte = this.source.byte()
    if (byte < 0) throw this.refuse('expected more instructions and a STOP, but the pickle ends')
    return byte
  }

  private uint32(): number {
    return this.take(4).readUInt32LE()
  }

  private uint64(): number {
    const value = this.take(8).readBigUInt64LE()
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.refuse(`expected a length below 2^53, not ${value}`)
    return Number(value)
  }

  private line(limit = MAX_LINE): Buffer {
    const line = this.source.line(limit)
    if (line === null) throw this.refuse('expected a line, but the pickle ends or it is too long')
    return line
  }

  /** Bytes, copied out of the pickle so that they do not hold on to it. */
  private bytes(length: number): Uint8Array {
    const bytes = this.take(length)
    this.pay(length + 100)
    return Uint8Array.from(bytes)
  }

  private text(length: number): void {
    const bytes = this.take(length)
    this.push(bytes.toString('utf8'), 2 * length + 32)
  }

  /** Python 2's strings have no encoding: UTF-8 where it is that, else one character a byte. */
  private oldText(bytes: Uint8Array): void {
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    const text = buffer.toString('utf8')
    this.push(text.includes('\ufffd') ? buffer.toString('latin1') : text, 2 * bytes.length + 32)
  }

  private integerOfBytes(length: number): void {
    if (length > 1024) throw this.refuse(`expected an integer of 1024 bytes at most, not ${length}`)
    const bytes = this.take(length)
    let value = 0n
    for (let i = length - 1; i >= 0; i -= 1) value = (value << 8n) | BigInt(bytes[i] as number)
    this.push(narrow(BigInt.asIntN(8 * length, value)), 24 + length)
  }

  private integerOfText(text: string): PickleValue {
    const digits = text.endsWith('L') ? text.slice(0, -1) : text
    if (!/^[+-]?[0-9]+$/.test(digits) || digits.length > MAX_DIGITS) {
      throw this.refuse(`expected an integer, not ${quote(text)}`)
    }
    const unsigned = BigInt(digits.replace(/^[+-]/, ''))
    return narrow(digits.startsWith('-') ? -unsigned : unsigned)
  }

  private remember(index: number): void {
    this.pay(48)
    this.memo.set(index, this.top())
  }

  private recall(index: number): void {
    const value = this.memo.get(index)
    if (value === undefined) throw this.refuse(`expected memo ${index} to be set, but it is not`)
    this.push(value)
  }

  private index(): number {
    const text = this.line(32).toString('latin1')
    if (!/^[0-9]{1,15}$/.test(text)) throw this.refuse(`expected the number of a memo, not ${quote(text)}`)
    return Number(text)
  }

  private string(value: PickleValue, what: string): string {
    if (typeof value !== 'string') throw this.refuse(`expected ${what} to be a string, not ${kindOf(value)}`)
    return value
  }

  /** What GLOBAL stands for: nothing is looked up but our own table of dtypes. */
  private global(module: string, name: string): void {
    const dtype = module === 'torch' ? torchDtypes.get(name) : undefined
    this.push(dtype ?? new PickleStub(currentModule(module), name, null), 200 + 2 * (module.length + name.length))
  }

  /** A call that is not made, but for the ones of the table. */
  private call(callee: PickleValue, args: PickleValue, kwargs: PickleValue = null): void {
    if (!(callee instanceof PickleStub))
      throw this.refuse(`expected a function or a class to call, not ${kindOf(callee)}`)
    if (!Array.isArray(args))
      throw this.refuse(`expected the arguments of ${nameOf(callee)} in a tuple, not ${kindOf(args)}`)
    this.push(this.result(callee, args, kwargs), 300 + 8 * args.length)
  }

  private result(callee: PickleStub, args: PickleValue[], kwargs: PickleValue): PickleValue {
    if (callee.args === null) {
      const known = CALLS.get(nameOf(callee))
      const result = known?.(args, { pay: (bytes) => this.pay(bytes), refuse: (problem) => this.refuse(problem) })
      if (result !== undefined) return result
    }
    // calling what a stub would have returned gives a stub again, which shows both
    const stub = new PickleStub(callee.module, callee.args === null ? callee.name : `${callee.name}()`, args)
    stub.kwargs = kwargs
    return stub
  }

  private append(target: PickleValue, values: readonly PickleValue[]): void {
    this.pay(8 * values.length)
    if (Array.isArray(target)) {
      for (const value of values) target.push(value)
    } else if (target instanceof PickleStub) {
      target.items ??= []
      for (const value of values) target.items.push(value)
    } else {
      throw this.refuse(`expected a list to append to, not ${kindOf(target)}`)
    }
  }

  private add(target: PickleValue, values: readonly PickleValue[]): void {
    if (!(target instanceof Set)) {
      this.append(target, values)
      return
    }
    this.pay(48 * values.length)
    for (const value of values) target.add(value)
  }

  private set(target: PickleValue, pairs: readonly PickleValue[]): void {
    if (pairs.length % 2 !== 0) throw this.refuse('expected keys and values in pairs, but one is left over')
    this.pay(32 * pairs.length)
    let map: Map<PickleValue, PickleValue>
    if (target instanceof Map) {
      map = target
    } else if (target instanceof PickleStub) {
      target.entries ??= new Map()
      map = target.entries
    } else {
      throw this.refuse(`expected a dict to set items of, not ${kindOf(target)}`)
    }
    for (let i = 0; i < pairs.length; i += 2) map.set(pairs[i] as PickleValue, pairs[i + 1] as PickleValue)
  }

  private build(target: PickleValue, state: PickleValue): void {
    if (target instanceof PickleStub) target.state = state
    // an OrderedDict's attributes (state_dict's `_metadata`), a tensor's: nothing that is needed
    else if (target === null || typeof target !== 'object') {
      throw this.refuse(`expected an object to restore, not ${kindOf(target)}`)
    }
  }

  private persistent(id: PickleValue): void {
    if (this.options.persistent === undefined) {
      throw this.refuse('expected a pickle that stands for itself, but it refers to data elsewhere')
    }
    this.push(this.options.persistent(id), 150)
  }

  run(): PickleValue {
    const { stack } = this
    for (;;) {
      this.instruction = this.source.position
      const code = this.byte()
      switch (code) {
        // -- the frame of it
        case 0x80: {
          // PROTO
          const protocol = this.byte()
          if (protocol > 5) throw this.refuse(`expected pickle protocol 0 to 5, not ${protocol}`)
          break
        }
        case 0x95: // FRAME: how much to read ahead
          this.take(8)
          break
        case 0x2e: {
          // STOP
          return this.pop()
        }
        // -- the stack
        case 0x28: // MARK
          this.pay(8)
          this.marks.push(stack.length)
          break
        case 0x30: // POP, which also takes a MARK away
          if (this.marks.at(-1) === stack.length) this.marks.pop()
          else this.pop()
          break
        case 0x31: // POP_MARK
          this.popToMark()
          break
        case 0x32: // DUP
          this.push(this.top())
          break
        // -- the memo
        case 0x67: // GET
          this.recall(this.index())
          break
        case 0x68: // BINGET
          this.recall(this.byte())
          break
        case 0x6a: // LONG_BINGET
          this.recall(this.uint32())
          break
        case 0x70: // PUT
          this.remember(this.index())
          break
        case 0x71: // BINPUT
          this.remember(this.byte())
          break
        case 0x72: // LONG_BINPUT
          this.remember(this.uint32())
          break
        case 0x94: // MEMOIZE
          this.remember(this.memo.size)
          break
        // -- constants
        case 0x4e: // NONE
          this.push(null)
          break
        case 0x88: // NEWTRUE
          this.push(true)
          break
        case 0x89: // NEWFALSE
          this.push(false)
          break
        // -- numbers
        case 0x49: {
          // INT: protocol 0 writes booleans as 00 and 01
          const text = this.line(MAX_DIGITS + 2).toString('latin1')
          this.push(text === '00' ? false : text === '01' ? true : this.integerOfText(text), 24 + text.length)
          break
        }
        case 0x4c: {
          // LONG
          const text = this.line(MAX_DIGITS + 2).toString('latin1')
          this.push(this.integerOfText(text), 24 + text.length)
          break
        }
        case 0x4a: // BININT
          this.push(this.take(4).readInt32LE(), 16)
          break
        case 0x4b: // BININT1
          this.push(this.byte())
          break
        case 0x4d: // BININT2
          this.push(this.take(2).readUInt16LE())
          break
        case 0x8a: // LONG1
          this.integerOfBytes(this.byte())
          break
        case 0x8b: // LONG4
          this.integerOfBytes(this.uint32())
          break
        case 0x46: // FLOAT
          this.push(this.float(this.line(64).toString('latin1')), 24)
          break
        case 0x47: // BINFLOAT
          this.push(this.take(8).readDoubleBE(), 24)
          break
        // -- strings and bytes
        case 0x53: // STRING
          this.oldText(this.quoted(this.line().toString('latin1')))
          break
        case 0x54: // BINSTRING
          this.oldText(this.take(this.uint32()))
          break
        case 0x55: // SHORT_BINSTRING
          this.oldText(this.take(this.byte()))
          break
        case 0x56: {
          // UNICODE: Python's raw-unicode-escape
          const text = this.line().toString('latin1')
          const unescaped = text.replace(
            /\\u([0-9a-fA-F]{4})|\\U(00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})/g,
            (_, short, long) => String.fromCodePoint(Number.parseInt(short ?? long, 16)),
          )
          this.push(unescaped, 2 * text.length + 32)
          break
        }
        case 0x8c: // SHORT_BINUNICODE
          this.text(this.byte())
          break
        case 0x58: // BINUNICODE
          this.text(this.uint32())
          break
        case 0x8d: // BINUNICODE8
          this.text(this.uint64())
          break
        case 0x43: // SHORT_BINBYTES
          this.push(this.bytes(this.byte()))
          break
        case 0x42: // BINBYTES
          this.push(this.bytes(this.uint32()))
          break
        case 0x8e: // BINBYTES8
        case 0x96: // BYTEARRAY8
          this.push(this.bytes(this.uint64()))
          break
        // -- containers
        case 0x5d: // EMPTY_LIST
          this.push([], 64)
          break
        case 0x29: // EMPTY_TUPLE
          this.push([], 64)
          break
        case 0x6c: // LIST
        case 0x74: {
          // TUPLE
          const items = this.popToMark()
          this.push(items, 64 + 8 * items.length)
          break
        }
        case 0x85: // TUPLE1
        case 0x86: // TUPLE2
        case 0x87: {
          // TUPLE3
          const items: PickleValue[] = []
          for (let i = code; i >= 0x85; i -= 1) items.push(this.pop())
          this.push(items.reverse(), 88)
          break
        }
        case 0x61: {
          // APPEND
          const value = this.pop()
          this.append(this.top(), [value])
          break
        }
        case 0x65: {
          // APPENDS
          const values = this.popToMark()
          this.append(this.top(), values)
          break
        }
        case 0x7d: // EMPTY_DICT
          this.push(new Map(), 250)
          break
        case 0x64: {
          // DICT
          const pairs = this.popToMark()
          const map = new Map<PickleValue, PickleValue>()
          this.set(map, pairs)
          this.push(map, 250)
          break
        }
        case 0x73: {
          // SETITEM
          const value = this.pop()
          const key = this.pop()
          this.set(this.top(), [key, value])
          break
        }
        case 0x75: {
          // SETITEMS
          const pairs = this.popToMark()
          this.set(this.top(), pairs)
          break
        }
        case 0x8f: // EMPTY_SET
          this.push(new Set(), 250)
          break
        case 0x90: {
          // ADDITEMS
          const values = this.popToMark()
          this.add(this.top(), values)
          break
        }
        case 0x91: {
          // FROZENSET
          const values = this.popToMark()
          const set = new Set<PickleValue>()
          this.add(set, values)
          this.push(set, 250)
          break
        }
        // -- names and calls
        case 0x63: {
          // GLOBAL
          const module = this.line(1024).toString('utf8')
          this.global(module, this.line(1024).toString('utf8'))
          break
        }
        case 0x93: {
          // STACK_GLOBAL
          const name = this.string(this.pop(), 'the name of a global')
          this.global(this.string(this.pop(), 'the module of a global'), name)
          break
        }
        case 0x52: {
          // REDUCE
          const args = this.pop()
          this.call(this.pop(), args)
          break
        }
        case 0x81: {
          // NEWOBJ
          const args = this.pop()
          this.call(this.pop(), args)
          break
        }
        case 0x92: {
          // NEWOBJ_EX
          const kwargs = this.pop()
          const args = this.pop()
          this.call(this.pop(), args, kwargs)
          break
        }
        case 0x69: {
          // INST: the class by name, its arguments from the MARK on
          const module = this.line(1024).toString('utf8')
          const name = this.line(1024).toString('utf8')
          const args = this.popToMark()
          this.global(module, name)
          this.call(this.pop(), args)
          break
        }
        case 0x6f: {
          // OBJ: the class, then its arguments, from the MARK on
          const [callee, ...args] = this.popToMark()
          if (callee === undefined) throw this.refuse('expected a class on the stack, but it is empty')
          this.call(callee, args)
          break
        }
        case 0x62: {
          // BUILD
          const state = this.pop()
          this.build(this.top(), state)
          break
        }
        case 0x50: // PERSID
          this.persistent(this.line(1024).toString('utf8'))
          break
        case 0x51: // BINPERSID
          this.persistent(this.pop())
          break
        case 0x82: // EXT1, EXT2, EXT4
        case 0x83:
        case 0x84:
          throw this.refuse("expected names, but the pickle uses numbers of Python's extension registry")
        case 0x97: // NEXT_BUFFER, READONLY_BUFFER
        case 0x98:
          throw this.refuse('expected a pickle that is complete, but its buffers were kept elsewhere')
        default:
          throw this.refuse(`expected an instruction of pickle, not 0x${code.toString(16).padStart(2, '0')}`)
      }
    }
  }

  private float(text: string): number {
    const word = /^([+-]?)(inf|nan)$/.exec(text)
    if (word !== null) return word[2] === 'nan' ? Number.NaN : word[1] === '-' ? -Infinity : Infinity
    if (!/^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$/.test(text)) {
      throw this.refuse(`expected a number, not ${quote(text)}`)
    }
    return Number(text)
  }

  /** The bytes of a string as Python 2's repr() writes it. */
  private quoted(text: string): Uint8Array {
    const quotes = text.charAt(0)
    if (text.length < 2 || (quotes !== "'" && quotes !== '"') || !text.endsWith(quotes)) {
      throw this.refuse(`expected a string in quotes, not ${quote(text)}`)
    }
    const simple: Record<string, string> = { n: '\n', t: '\t', r: '\r', a: '\x07', b: '\b', f: '\f', v: '\v' }
    const unescaped = text.slice(1, -1).replace(/\\(x[0-9a-fA-F]{2}|[0-7]{1,3}|.)/g, (_, code: string) => {
      if (code.length === 3 && code.startsWith('x')) return String.fromCharCode(Number.parseInt(code.slice(1), 16))
      if (/^[0-7]/.test(code)) return String.fromCharCode(Number.parseInt(code, 8) & 0xff)
      return simple[code] ?? (/['"\\]/.test(code) ? code : `\\${code}`)
    })
    return Buffer.from(unescaped, 'latin1')
  }
}

function narrow(value: bigint): number | bigint {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value
}

/** Today's names of modules that were renamed. */
function currentModule(module: string): string {
  if (module === '__builtin__') return 'builtins'
  if (module === 'copy_reg') return 'copyreg'
  return module.startsWith('numpy._core.') ? module.replace('numpy._core.', 'numpy.core.') : module
}

function nameOf(stub: PickleStub): string {
  return `${stub.module}.${stub.name}`
}

/** @internal What a value is, for messages. */
export function kindOf(value: PickleValue): string {
  if (value === null) return 'None'
  if (Array.isArray(value)) return 'a list'
  if (value instanceof Map) return 'a dict'
  if (value instanceof Set) return 'a set'
  if (value instanceof Uint8Array) return 'bytes'
  if (value instanceof PickleStub) return quote(nameOf(value))
  if (value instanceof TensorRef) return 'a tensor'
  if (value instanceof StorageRef) return 'a storage'
  return typeof value === 'object' ? 'a complex number' : `a ${typeof value}`
}

interface CallContext {
  pay(bytes: number): void
  refuse(problem: string): WeightsFileError
}

/** What a known function makes of its arguments; undefined: these it does not know, so the call becomes a stub. */
type KnownCall = (args: PickleValue[], context: CallContext) => PickleValue | undefined

/** (storage, offset, size, stride, requires_grad, hooks, metadata), or with a dtype before the metadata (v3). */
function rebuildTensor(args: PickleValue[], { refuse }: CallContext): PickleValue {
  const [storage, offset, shape, strides] = args
  const withDtype = typeof args[6] === 'string'
  const metadata = args[withDtype ? 7 : 6]
  if (!(storage instanceof StorageRef))
    throw refuse(`expected a tensor over a storage, not over ${kindOf(storage ?? null)}`)
  if (typeof offset !== 'number' || !Number.isSafeInteger(offset) || offset < 0) {
    throw refuse('expected the offset of a tensor to be an integer that is not negative')
  }
  if (!isSizes(shape) || !isSizes(strides) || shape.length !== strides.length) {
    throw refuse('expected sizes and strides of a tensor: equally many integers that are not negative')
  }
  const dtype = withDtype ? torchDtypes.get(args[6] as string) : storage.dtype
  if (dtype === undefined || dtype === null) throw refuse('expected a tensor with a dtype that is known')
  if (metadata instanceof Map && (metadata.get('conj') === true || metadata.get('neg') === true)) {
    // the bytes are those of another tensor: taken as they are they would be wrong
    throw refuse(
      'expected tensors with their values in place, but one is a conjugate or negative view; resolve it in Python',
    )
  }
  return new TensorRef(storage, dtype, offset, shape, strides, args[4] === true)
}

const rebuildParameter: KnownCall = ([data, requiresGrad]) =>
  data instanceof TensorRef
    ? new TensorRef(data.storage, data.dtype, data.offset, data.shape, data.strides, requiresGrad === true)
    : undefined

const copyList: KnownCall = ([items], { pay }) => {
  if (items === undefined) return []
  if (!Array.isArray(items) && !(items instanceof Set)) return undefined
  const copy = Array.from(items)
  pay(8 * copy.length)
  return copy
}

const copySet: KnownCall = (args, context) => {
  const items = copyList(args, context)
  if (!Array.isArray(items)) return undefined
  context.pay(48 * items.length)
  return new Set(items)
}

/** dict(), dict(mapping), dict(pairs). */
const copyDict: KnownCall = ([items], { pay }) => {
  if (items === undefined) return new Map()
  if (items instanceof Map) {
    pay(64 * items.size)
    return new Map(items)
  }
  if (!Array.isArray(items) || !items.every((pair) => Array.isArray(pair) && pair.length === 2)) return undefined
  pay(64 * items.length)
  return new Map(items as [PickleValue, PickleValue][])
}

/** encode(text, 'latin1'): how protocols 0 to 2 write bytes. Also bytes(text, 'latin1'). */
const encode: KnownCall = ([text, encoding = 'utf-8'], { pay }) => {
  if (text === undefined) return new Uint8Array()
  if (text instanceof Uint8Array) {
    pay(text.length + 100)
    return Uint8Array.from(text)
  }
  if (typeof text !== 'string' || typeof encoding !== 'string') return undefined
  const plain = encoding.toLowerCase().replaceAll(/[-_ ]/g, '')
  const known = plain === 'latin1' || plain === 'iso88591' ? 'latin1' : plain === 'utf8' ? 'utf8' : undefined
  if (known === undefined) return undefined
  pay(3 * text.length + 100)
  return Uint8Array.from(Buffer.from(text, known))
}

/** numpy.core.multiarray.scalar(dtype, bytes). */
const numpyScalar: KnownCall = ([dtype, bytes]) => {
  const type = numpyType(dtype)
  if (type === null || !(bytes instanceof Uint8Array)) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  if (view.byteLength !== type.size) return undefined
  const { little } = type
  switch (type.dtype) {
    case 'float64':
      return view.getFloat64(0, little)
    case 'float32':
      return view.getFloat32(0, little)
    case 'int64':
      return narrow(view.getBigInt64(0, little))
    case 'uint64':
      return narrow(view.getBigUint64(0, little))
    case 'int32':
      return view.getInt32(0, little)
    case 'uint32':
      return view.getUint32(0, little)
    case 'int16':
      return view.getInt16(0, little)
    case 'uint16':
      return view.getUint16(0, little)
    case 'int8':
      return view.getInt8(0)
    case 'uint8':
      return view.getUint8(0)
    case 'bool':
      return view.getUint8(0) !== 0
    default:
      return undefined
  }
}

const CALLS: ReadonlyMap<string, KnownCall> = new Map<string, KnownCall>([
  ['torch._utils._rebuild_tensor', rebuildTensor],
  ['torch._utils._rebuild_tensor_v2', rebuildTensor],
  ['torch._utils._rebuild_tensor_v3', rebuildTensor],
  ['torch._utils._rebuild_parameter', rebuildParameter],
  ['torch._utils._rebuild_parameter_with_state', rebuildParameter],
  [
    // a tensor with attributes, or of a subclass: (function, class, its arguments, state)
    'torch._tensor._rebuild_from_type_v2',
    ([callee, , args], context) => {
      if (!(callee instanceof PickleStub) || callee.args !== null || !Array.isArray(args)) return undefined
      const name = nameOf(callee)
      // only functions that make a tensor themselves: not this one again, nested without end
      return name.startsWith('torch._utils._rebuild_') ? CALLS.get(name)?.(args, context) : undefined
    },
  ],
  ['torch.Size', copyList],
  [
    'torch.device',
    ([type, index]) => {
      if (typeof type !== 'string' || type.length > 100) return undefined
      return typeof index === 'number' ? `${type}:${index}` : type
    },
  ],
  ['collections.OrderedDict', copyDict],
  // the factory is dropped: nothing would call it
  ['collections.defaultdict', ([, items], context) => copyDict(items === undefined ? [] : [items], context)],
  ['collections.Counter', copyDict],
  ['collections.deque', copyList],
  ['builtins.dict', copyDict],
  ['builtins.list', copyList],
  ['builtins.tuple', copyList],
  ['builtins.set', copySet],
  ['builtins.frozenset', copySet],
  ['builtins.bytes', encode],
  ['builtins.bytearray', encode],
  ['_codecs.encode', encode],
  [
    'builtins.complex',
    ([re = 0, im = 0]) => (typeof re === 'number' && typeof im === 'number' ? { re, im } : undefined),
  ],
  [
    'builtins.int',
    ([value = 0]) => (typeof value === 'bigint' || Number.isInteger(value) ? (value as number | bigint) : undefined),
  ],
  ['builtins.float', ([value = 0]) => (typeof value === 'number' ? value : undefined)],
  ['builtins.bool', ([value = false]) => (typeof value === 'boolean' ? value : undefined)],
  ['builtins.str', ([value = '']) => (typeof value === 'string' ? value : undefined)],
  ['numpy.core.multiarray.scalar', numpyScalar],
])

interface NumpyType {
  dtype: DType
  size: number
  little: boolean
}

const NUMPY_TYPES: ReadonlyMap<string, DType> = new Map<string, DType>([
  ['f8', 'float64'],
  ['f4', 'float32'],
  ['f2', 'float16'],
  ['i8', 'int64'],
  ['i4', 'int32'],
  ['i2', 'int16'],
  ['i1', 'int8'],
  ['u8', 'uint64'],
  ['u4', 'uint32'],
  ['u2', 'uint16'],
  ['u1', 'uint8'],
  ['b1', 'bool'],
  ['c8', 'complex64'],
  ['c16', 'complex128'],
])

/** numpy.dtype('f4', False, True), then restored with (version, '<', ...). */
function numpyType(value: PickleValue | undefined): NumpyType | null {
  if (!(value instanceof PickleStub) || nameOf(value) !== 'numpy.dtype') return null
  const name = value.args?.[0]
  const dtype = typeof name === 'string' ? NUMPY_TYPES.get(name.replace(/^[<>|=]/, '')) : undefined
  if (dtype === undefined || typeof name !== 'string') return null
  const order = Array.isArray(value.state) ? value.state[1] : undefined
  return { dtype, size: Number(name.replace(/\D/g, '')), little: order !== '>' && !name.startsWith('>') }
}

/**
 * A NumPy array of numbers as a tensor: restored with (version, shape, dtype, is Fortran's order, bytes), or made by
 * `_frombuffer(bytes, dtype, shape, order)`. null for what is no array, or one of objects, words, or another byte order.
 */
export function numpyArray(stub: PickleStub): TensorRef | null {
  let shape: PickleValue | undefined
  let type: PickleValue | undefined
  let bytes: PickleValue | undefined
  let fortran = false
  const name = nameOf(stub)
  if (name === 'numpy.core.multiarray._reconstruct' && Array.isArray(stub.state)) {
    ;[, shape, type, , bytes] = stub.state
    fortran = stub.state[3] === true || stub.state[3] === 1
  } else if (name === 'numpy.core.numeric._frombuffer' && stub.args !== null) {
    ;[bytes, type, shape] = stub.args
    fortran = stub.args[3] === 'F'
  }
  const numpy = numpyType(type)
  if (numpy === null || !numpy.little || !(bytes instanceof Uint8Array) || !isSizes(shape)) return null
  const strides = new Array<number>(shape.length)
  const order = fortran ? shape.keys() : Array.from(shape.keys()).reverse()
  let elements = 1
  for (const k of order) {
    strides[k] = elements
    elements *= shape[k] as number
  }
  if (elements * numpy.size !== bytes.length) return null
  return new TensorRef(bytes, numpy.dtype, 0, shape, strides, false)
}

/**
 * What torch.save's persistent ids stand for: ('storage', class, key, location, size), in the old form with the part of
 * the storage that is meant as well: (view's key, offset, size) or None. In the old form ('module', class, file, source)
 * stands for the class.
 * @throws the error that refuse makes
 */
export function torchStorage(id: PickleValue, refuse: (problem: string) => Error): PickleValue {
  if (!Array.isArray(id) || typeof id[0] !== 'string') throw refuse(`expected the name of a storage, not ${kindOf(id)}`)
  if (id[0] === 'module' && id.length === 4) return id[1] as PickleValue
  const [what, type, keyValue, , size, viewValue] = id
  const key = typeof keyValue === 'number' ? String(keyValue) : keyValue
  if (what !== 'storage' || !(type instanceof PickleStub) || typeof key !== 'string' || key.length > 200) {
    throw refuse('expected the name of a storage: its class, key, place and size')
  }
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw refuse(`expected the size of storage ${quote(key)} to be an integer that is not negative`)
  }
  const untyped = nameOf(type) === 'torch.storage.UntypedStorage' || nameOf(type) === 'torch.UntypedStorage'
  const dtype = type.module === 'torch' || type.module === 'torch.cuda' ? storageClasses.get(type.name) : undefined
  if (!untyped && dtype === undefined) {
    throw refuse(`expected a storage of a known class, but ${quote(key)} is a ${kindOf(type)}`)
  }
  let view: { offset: number; size: number } | null = null
  if (viewValue !== undefined && viewValue !== null) {
    const sizes = Array.isArray(viewValue) ? viewValue.slice(1) : null
    if (!isSizes(sizes) || sizes.length !== 2)
      throw refuse(`expected offset and size of a view of storage ${quote(key)}`)
    view = { offset: sizes[0] as number, size: sizes[1] as number }
  }
  return new StorageRef(dtype ?? null, key, size, view)
}
