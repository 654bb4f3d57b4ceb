import { torchDtypes } from './dtypes.js'
import { quote, WeightsFileError } from './error.js'
import { CALLS } from './pickle-calls.js'
import { MAX_PICKLE_MEMORY, type PickleSource } from './pickle-source.js'
import { currentModule, kindOf, nameOf, narrow, PickleStub, type PickleValue } from './pickle-values.js'

/*
 * A reader of Python's pickles that runs nothing. A pickle is a program for a stack machine, and two of its instructions
 * (GLOBAL and REDUCE) import and call whatever they name: in Python, loading an untrusted one is running it. Here GLOBAL
 * makes a PickleStub that holds the two names, and REDUCE knows a short table of calls that it does itself (containers,
 * numbers, tensors over storages); any other becomes a stub with its arguments.
 *
 * Instructions: Lib/pickletools.py of CPython; protocols 0 to 5. How torch saves tensors: torch/serialization.py,
 * torch/_utils.py, torch/_weights_only_unpickler.py.
 */

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
