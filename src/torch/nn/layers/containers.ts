import type { Tensor } from '../../tensor.js'
import { Module } from '../module.js'

/** A module from one tensor to one tensor: what Sequential puts in a row. */
export type Layer = Module & { forward(input: Tensor): Tensor }

/** What Sequential and ModuleList share: parts named '0', '1' and so on. */
abstract class ItemModule<Item extends Module> extends Module implements Iterable<Item> {
  readonly #items: Item[]

  constructor(items: Iterable<Item>) {
    super()
    this.#items = Array.from(items, (item) => this.check(item))
  }

  private check(item: Item): Item {
    if (item instanceof Module) return item
    throw new TypeError(
      `${this.constructor.name}: expected modules, but received ${item === null ? 'null' : `a ${typeof item}`}`,
    )
  }

  get length(): number {
    return this.#items.length
  }

  /** One item, from the end where negative. */
  at(index: number): Item {
    const item = this.#items.at(index)
    if (item === undefined || !Number.isInteger(index)) {
      throw new RangeError(`${this.constructor.name}.at: expected an index below ${this.length}, but received ${index}`)
    }
    return item
  }

  /** Puts another module in an item's place. */
  setAt(index: number, item: Item): void {
    this.at(index)
    this.#items[index < 0 ? this.length + index : index] = this.check(item)
  }

  /** Adds modules at the end. */
  append(...items: readonly Item[]): this {
    for (const item of items) this.#items.push(this.check(item))
    return this
  }

  [Symbol.iterator](): Iterator<Item> {
    return this.#items[Symbol.iterator]()
  }

  override namedChildren(): [string, Module][] {
    const items = this.#items.map((item, index): [string, Module] => [String(index), item])
    return [...items, ...super.namedChildren()]
  }

  protected override setChild(name: string, module: Module): void {
    if (/^\d+$/.test(name)) this.setAt(Number(name), module as Item)
    else super.setChild(name, module)
  }
}

/**
 * Layers one after the other.
 *
 * @example new nn.Sequential(new nn.Linear(10, 32), new nn.GELU(), new nn.Linear(32, 1))
 */
export class Sequential extends ItemModule<Layer> {
  constructor(...layers: readonly Layer[]) {
    super(layers)
  }

  forward(input: Tensor): Tensor {
    let value = input
    for (const layer of this) value = layer.forward(value)
    return value
  }
}

/**
 * Modules in an array that their owner's parameters and state dict include.
 *
 * @example layers = new nn.ModuleList(Array.from({ length: 12 }, () => new Block(192)))
 */
export class ModuleList<Item extends Module = Module> extends ItemModule<Item> {
  constructor(items: Iterable<Item> = []) {
    super(items)
  }

  /** A ModuleList has none: call its items. */
  forward(): never {
    throw new TypeError('ModuleList.forward: expected a call of one of the items, but a list itself computes nothing')
  }
}

/** Modules by name that their owner's parameters and state dict include. */
export class ModuleDict<Item extends Module = Module> extends Module implements Iterable<[string, Item]> {
  readonly #items: Map<string, Item>

  constructor(items: Readonly<Record<string, Item>> | Iterable<readonly [string, Item]> = {}) {
    super()
    this.#items = new Map()
    for (const [name, item] of Symbol.iterator in items ? items : Object.entries(items)) this.set(name, item)
  }

  get size(): number {
    return this.#items.size
  }

  has(name: string): boolean {
    return this.#items.has(name)
  }

  get(name: string): Item {
    const item = this.#items.get(name)
    if (item === undefined) {
      throw new RangeError(`ModuleDict.get: expected one of [${[...this.#items.keys()]}], but received '${name}'`)
    }
    return item
  }

  set(name: string, item: Item): this {
    if (name === '' || name.includes('.'))
      throw new TypeError(`ModuleDict: expected a name without dots, but received '${name}'`)
    this.#items.set(name, item)
    return this
  }

  [Symbol.iterator](): Iterator<[string, Item]> {
    return this.#items[Symbol.iterator]()
  }

  override namedChildren(): [string, Module][] {
    return [...this.#items, ...super.namedChildren()]
  }

  protected override setChild(name: string, module: Module): void {
    if (this.has(name)) this.set(name, module as Item)
    else super.setChild(name, module)
  }

  /** A ModuleDict has none: call its items. */
  forward(): never {
    throw new TypeError(
      'ModuleDict.forward: expected a call of one of the items, but a dictionary itself computes nothing',
    )
  }
}
