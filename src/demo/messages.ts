/** What the demo and its senders tell each other. */
export interface FleetStart {
  readonly url: string
  readonly key: string
  /** IoT events to send; the platforms come on top. */
  readonly events: number
  /** The demo's present, epoch ms. */
  readonly now: number
}

export interface FleetReport {
  type: 'progress' | 'done'
  sent: number
  stored: number
  refused: number
}
