/* Sleeping up to a point in time, to within microseconds. The includer defines _GNU_SOURCE. */
#ifndef RINGSERVE_EMULATED_CLOCK_H
#define RINGSERVE_EMULATED_CLOCK_H

#include <sys/prctl.h>
#include <time.h>

static long long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* The kernel adds a slack of 50 us to every sleep of a thread that did not ask for less; the rest of the
 * overshoot (an idle CPU has to wake up) is covered by sleeping spin_ns short and spinning for the remainder. */
static int sleep_until(long long deadline, long long spin_ns)
{
    const long long wake = deadline - spin_ns;
    const struct timespec until = {.tv_sec = wake / 1000000000, .tv_nsec = wake % 1000000000};
    if (wake > now_ns()) {
        prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
        int error = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        if (error)
            return error;
    }
    while (now_ns() < deadline)
        ;
    return 0;
}

#endif
