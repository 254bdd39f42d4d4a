/** The version of this program. A file of its own, so that the command line can say it without loading the service. */
export const VERSION = '0.1.0'
