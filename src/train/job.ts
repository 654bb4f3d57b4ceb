/**
 * Work under way. It can be awaited for its result, and iterated for its events while it runs, both or either:
 * `for await (const event of job) ...; const result = await job`.
 *
 * An iteration gets the events from when it began to the end; it throws where the work fails.
 */
export class Job<Event, Result> implements PromiseLike<Result>, AsyncIterable<Event> {
  readonly #result: Promise<Result>
  readonly #listeners = new Set<(event: Event) => void>()
  #isSettled = false

  /** @param work begins after whoever made the job had the turn to iterate it */
  constructor(work: (emit: (event: Event) => void) => Promise<Result>) {
    this.#result = (async () => {
      await new Promise(setImmediate)
      try {
        return await work((event) => {
          for (const listener of this.#listeners) listener(event)
        })
      } finally {
        this.#isSettled = true
      }
    })()
  }

  // biome-ignore lint/suspicious/noThenProperty: a job is awaited for its result, as execa's processes are
  then<A = Result, B = never>(
    fulfilled?: ((value: Result) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.#result.then(fulfilled, rejected)
  }

  catch<B = never>(rejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<Result | B> {
    return this.#result.catch(rejected)
  }

  finally(settled?: (() => void) | null): Promise<Result> {
    return this.#result.finally(settled)
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Event, void, undefined> {
    const waiting: Event[] = []
    let wake = () => {}
    const listener = (event: Event) => {
      waiting.push(event)
      wake()
    }
    this.#listeners.add(listener)
    // told here too, below: not unhandled where nobody awaits the result
    this.#result.then(
      () => wake(),
      () => wake(),
    )
    try {
      while (true) {
        const event = waiting.shift()
        if (event !== undefined) yield event
        else if (this.#isSettled) break
        else {
          await new Promise<void>((resolve) => {
            wake = resolve
            if (waiting.length > 0 || this.#isSettled) resolve()
          })
        }
      }
    } finally {
      this.#listeners.delete(listener)
    }
    await this.#result
  }
}
