import { parentPort, type Transferable } from 'node:worker_threads'
import type { Answer, Question } from './threads.js'

/** In a worker: answers what {@link Threads} ask, with what is handed over rather than copied. */
export function answerAll<Request, Reply>(
  work: (request: Request) => Promise<{ reply: Reply; transfer?: readonly Transferable[] }>,
): void {
  const port = parentPort!
  const answer = async ({ id, request }: Question<Request>) => {
    try {
      const { reply, transfer = [] } = await work(request)
      port.postMessage({ id, reply } satisfies Answer<Reply>, transfer)
    } catch (error) {
      port.postMessage({ id, error: error instanceof Error ? error.message : String(error) } satisfies Answer<Reply>)
    }
  }
  port.on('message', (question: Question<Request>) => void answer(question))
}
