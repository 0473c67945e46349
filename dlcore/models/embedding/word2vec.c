/* A training step of word2vec with negative sampling, as XLA's CPU backend calls it.

   It does what `word2vec_step` does by XLA's own operations, see updates.py, and is called by
   kernel.py. Threads divide the words of a micro-batch, then the rows of the tables: each
   row is updated by one thread, in the order of the text. So no bit of a result depends on the
   number of threads.

   Shapes: P words of a micro-batch (centres) and W words of its margin on either side (P + 2 W
   positions), S words of a group, K samples of noise that a group shares, D features. In buffers a
   row has so many vectors that it holds D numbers, or K; the rest of it is 0. */

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#ifdef __x86_64__
#define PAUSE __builtin_ia32_pause
#else
#define PAUSE()
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));

enum { SKIP_GRAM, CBOW_MEAN, CBOW_SUM, CBOW_ORIGINAL };
enum { QUERIES = 32, WIDEST = 7, LONGEST_PRODUCT = 64, MOST_THREADS = 64, SPINS = 1000 };

/* Where threads wait until all of them have come: awake for some microseconds, then asleep, so that
   the system can give the processor to one that has not come. */
typedef struct {
  atomic_int arrived, turn;
  int threads;
  pthread_mutex_t mutex;
  pthread_cond_t turned;
} Barrier;

static void turn(Barrier *barrier) {
  pthread_mutex_lock(&barrier->mutex);
  atomic_fetch_add(&barrier->turn, 1);
  pthread_cond_broadcast(&barrier->turned);
  pthread_mutex_unlock(&barrier->mutex);
}

static void wait_for_turn(Barrier *barrier, int past) {
  for (int tries = 0; tries < SPINS; ++tries) {
    if (atomic_load(&barrier->turn) != past) return;
    PAUSE();
  }
  pthread_mutex_lock(&barrier->mutex);
  while (atomic_load(&barrier->turn) == past)
    pthread_cond_wait(&barrier->turned, &barrier->mutex);
  pthread_mutex_unlock(&barrier->mutex);
}

static void wait_for_all(Barrier *barrier) {
  int past = atomic_load(&barrier->turn);
  if (atomic_fetch_add(&barrier->arrived, 1) == barrier->threads - 1) {
    atomic_store(&barrier->arrived, 0);
    turn(barrier);
  } else {
    wait_for_turn(barrier, past);
  }
}

typedef struct {
  /* Of the call. */
  float *tables[2], *sums[2]; /* Input and output: [R, D] and [R]. */
  const int32_t *words, *sentences, *reach, *noise;
  float rate, share;
  int architecture, features, micro_batch, window, samples, count;
  float *losses, *weights;
  atomic_int *skipped;
  /* Of the micro-batch. */
  int width, groups, group; /* Numbers of a buffer's row; groups; S. */
  float *queries, *slopes;  /* [P]: of CBOW, `queries` become the slopes of the targets. */
  float *around;            /* [P + 2 W]: slopes of the words around. */
  float *others;            /* [groups K]: slopes of the noise. */
  float *pairs;             /* [P, 2 W + 1]: how much of a centre's row each place around gets. */
  float *centre_squares, *around_squares, *other_squares; /* Mean squares of slopes. */
  double *group_losses, *group_weights;                   /* [groups] */
  atomic_int next;
  Barrier barrier;
} Job;

/* c (+)= a b, for a tile of m rows and n vectors that stays in registers; m and n are constants.
   The element (i, j) of a is a[i * a_row + j * a_column]; b has k rows. */
INLINE void tile(const int m, const int n, int k, const float *a, ptrdiff_t a_row,
                 ptrdiff_t a_column, const float *b, ptrdiff_t b_row, float *c, ptrdiff_t c_row,
                 bool add) {
  Vector sums[6][WIDEST];
#pragma GCC unroll 8
  for (int i = 0; i < m; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j)
      sums[i][j] = add ? ((const Vector *)(c + i * c_row))[j] : (Vector){0};
  for (int l = 0; l < k; ++l, a += a_column, b += b_row)
#pragma GCC unroll 8
    for (int i = 0; i < m; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < n; ++j) sums[i][j] += a[i * a_row] * ((const Vector *)b)[j];
#pragma GCC unroll 8
  for (int i = 0; i < m; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) ((Vector *)(c + i * c_row))[j] = sums[i][j];
}

/* c (+)= a b for m rows of `width` numbers; see `tile`. */
static void product(int m, int k, int width, const float *a, ptrdiff_t a_row, ptrdiff_t a_column,
                    const float *b, ptrdiff_t b_row, float *c, ptrdiff_t c_row, bool add) {
  int vectors = width / LANES, parts = (vectors + WIDEST - 1) / WIDEST;
  for (int part = 0, start = 0; part < parts; ++part) {
    int n = (vectors - start + parts - part - 1) / (parts - part), i = 0;
    const float *b_part = b + start * LANES;
    float *c_part = c + start * LANES;
    start += n;
#define TILES(M, N)        \
  for (; i + M <= m; i += M) \
    tile(M, N, k, a + i * a_row, a_row, a_column, b_part, b_row, c_part + i * c_row, c_row, add);
#define CASE(M, N) \
  case N:          \
    TILES(M, N)    \
    TILES(1, N)    \
    break;
    switch (n) { CASE(6, 1) CASE(6, 2) CASE(4, 3) CASE(3, 4) CASE(2, 5) CASE(2, 6) CASE(2, 7) }
#undef CASE
#undef TILES
  }
}

INLINE float total(Vector vector) {
  float sum = 0;
  for (int lane = 0; lane < LANES; ++lane) sum += vector[lane];
  return sum;
}

INLINE float dot(const float *a, const float *b, int width) {
  Vector sums[4] = {{0}, {0}, {0}, {0}};
  const Vector *left = (const Vector *)a, *right = (const Vector *)b, *end = left + width / LANES;
  for (; left + 4 <= end; left += 4, right += 4)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sums[i] += left[i] * right[i];
  for (; left < end; ++left, ++right) sums[0] += *left * *right;
  return total((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

INLINE Vector choose(Integers mask, Vector yes, Vector no) {
  return (Vector)(((Integers)yes & mask) | ((Integers)no & ~mask));
}

/* exp(-x) of x >= 0, with a relative error of 2e-7 up to 10. */
INLINE Vector exp_minus(Vector x) {
  x = choose(x > 87, (Vector){0} + 87, x);
  Integers power = __builtin_convertvector(x * 1.44269504f + 0.5f, Integers);
  Vector rest = __builtin_convertvector(power, Vector) * 0.693147181f - x, sum = {0};
  const float series[] = {1 / 5040.f, 1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f, 1 / 2.f, 1, 1};
  for (int i = 0; i < 8; ++i) sum = sum * rest + series[i];
  return sum * (Vector)((127 - power) << 23);
}

/* Replaces scores by their sigmoids and returns the sum of log(1 + exp(score)). */
static float sigmoids(float *scores, int width) {
  float sum = 0;
  for (int start = 0; start < width; start += LONGEST_PRODUCT) {
    int end = start + LONGEST_PRODUCT < width ? start + LONGEST_PRODUCT : width;
    Vector positive = {0}, factors = (Vector){0} + 1; /* One logarithm serves many factors. */
    for (int at = start; at < end; at += LANES) {
      Vector x = *(Vector *)(scores + at);
      Vector small = exp_minus(choose(x < 0, -x, x)), both = 1 + small;
      positive += choose(x > 0, x, (Vector){0});
      factors *= both;
      *(Vector *)(scores + at) = choose(x < 0, small, (Vector){0} + 1) / both;
    }
    float factor = 1;
    for (int lane = 0; lane < LANES; ++lane) factor *= factors[lane];
    sum += total(positive) + logf(factor);
  }
  return sum;
}

static void gather(const Job *job, float *into, int table, const int32_t *rows, int count) {
  for (int i = 0; i < count; ++i)
    memcpy(into + (size_t)i * job->width,
           job->tables[table] + (size_t)rows[i] * job->features, 4 * (size_t)job->features);
}

static void scale(float *row, float by, int width) {
  for (int d = 0; d < width; ++d) row[d] *= by;
}

/* The room of a thread. */
typedef struct {
  float *context;   /* [S + 2 W]: rows of the words around. */
  float *noise;     /* [K] */
  float *by_sample; /* [D, K]: the same transposed. */
  float *scores;    /* [QUERIES, K] */
  float *targets;   /* [QUERIES]: rows of the words that CBOW predicts. */
  float *near;      /* [2 W]: the scores of a centre. */
} Room;

/* Marks the pairs of a centre and returns how many they are. */
static int mark_pairs(const Job *job, int start, int centre) {
  int window = job->window, span = 2 * window + 1, at = start + centre + window, found = 0;
  float *pairs = job->pairs + (size_t)centre * span;
  memset(pairs, 0, 4 * span);
  int sentence = job->sentences[at], reach = job->reach[at];
  if (sentence < 0) return 0;
  for (int away = -reach; away <= reach; ++away)
    if (away && job->sentences[at + away] == sentence) {
      pairs[window + away] = 1;
      ++found;
    }
  return found;
}

/* The pairs of a centre of skip-gram: their loss, their slopes in `pairs`, and the query's slope. */
static float pairs_of(const Job *job, const Room *room, int centre, const float *context) {
  int width = job->width, span = 2 * job->window + 1, count = 0;
  float *pairs = job->pairs + (size_t)centre * span;
  const float *query = job->queries + (size_t)centre * width;
  for (int i = 0; i < span; ++i)
    if (pairs[i] != 0) room->near[count++] = -dot(query, context + (size_t)i * width, width);
  int padded = (count + LANES - 1) / LANES * LANES;
  for (int i = count; i < padded; ++i) room->near[i] = -100;
  float loss = sigmoids(room->near, padded);
  count = 0;
  for (int i = 0; i < span; ++i)
    if (pairs[i] != 0) pairs[i] = -room->near[count++];
  product(1, span, width, pairs, 0, 1, context, width, job->slopes + (size_t)centre * width, 0,
          false);
  return loss;
}

/* The target of a window of CBOW: its loss; the mean becomes the slope of the target's row. */
static float target_of(const Job *job, const float *row, float *mean, float *slope, bool real) {
  float score[LANES] __attribute__((aligned(4 * LANES)));
  for (int i = 0; i < LANES; ++i) score[i] = -100;
  score[0] = -dot(mean, row, job->width);
  float loss = sigmoids(score, LANES), by = real ? -score[0] : 0;
  for (int d = 0; d < job->width; ++d) {
    slope[d] += by * row[d];
    mean[d] *= by;
  }
  return real ? loss : 0;
}

/* The loss of the words of a group, and all slopes but those of the words around. */
static void learn_group(Job *job, const Room *room, int micro, int group) {
  int width = job->width, features = job->features, window = job->window, size = job->group;
  int first = group * size, start = micro * job->micro_batch, span = 2 * window + 1;
  int samples = job->samples, padded = (samples + LANES - 1) / LANES * LANES;
  bool skip_gram = job->architecture == SKIP_GRAM;
  bool by_count = job->architecture != CBOW_SUM;
  bool slope_by_count = job->architecture == CBOW_MEAN;
  const int32_t *words = job->words + start + first;
  float *queries = job->queries + (size_t)first * width;
  float *slopes = job->slopes + (size_t)first * width;
  float *others = job->others + (size_t)group * samples * width;
  float counts[QUERIES];
  double loss = 0, weight = 0;

  gather(job, room->context, skip_gram, words, size + 2 * window);
  gather(job, room->noise, 1, job->noise + ((size_t)micro * job->groups + group) * samples,
         samples);
  for (int k = 0; k < samples; ++k)
    for (int d = 0; d < features; ++d)
      room->by_sample[d * padded + k] = room->noise[(size_t)k * width + d];
  if (skip_gram) gather(job, queries, 0, words + window, size);
  memset(others, 0, 4 * (size_t)samples * width);

  for (int part = 0; part < size; part += QUERIES) {
    int end = part + QUERIES < size ? part + QUERIES : size, some = end - part;
    for (int i = part; i < end; ++i) {
      const float *context = room->context + (size_t)i * width;
      int found = mark_pairs(job, start, first + i);
      counts[i - part] = found;
      if (skip_gram) {
        weight += found;
        loss += pairs_of(job, room, first + i, context);
      } else {
        float *mean = queries + (size_t)i * width;
        product(1, span, width, job->pairs + (size_t)(first + i) * span, 0, 1, context, width,
                mean, 0, false);
        if (by_count && found) scale(mean, 1.f / found, width);
        weight += found > 0;
      }
    }
    float *some_queries = queries + (size_t)part * width;
    float *some_slopes = slopes + (size_t)part * width;
    product(some, features, padded, some_queries, width, 1, room->by_sample, padded, room->scores,
            padded, false);
    for (int i = 0; i < some; ++i) {
      float *scores = room->scores + (size_t)i * padded;
      float by = job->share * (skip_gram ? counts[i] : counts[i] > 0);
      for (int k = samples; k < padded; ++k) scores[k] = -100;
      loss += by * sigmoids(scores, padded);
      scale(scores, by, padded);
    }
    product(some, samples, width, room->scores, padded, 1, room->noise, width, some_slopes, width,
            skip_gram);
    product(samples, some, width, room->scores, 1, padded, some_queries, width, others, width,
            true);
    if (!skip_gram) gather(job, room->targets, 1, words + window + part, some);
    for (int i = part; i < end; ++i) {
      float *query = queries + (size_t)i * width, *slope = slopes + (size_t)i * width;
      float count = counts[i - part];
      if (!skip_gram) {
        loss += target_of(job, room->targets + (size_t)(i - part) * width, query, slope, count > 0);
        if (slope_by_count && count > 0) scale(slope, 1.f / count, width);
      }
      const float *own = skip_gram ? slope : query;
      job->centre_squares[first + i] = dot(own, own, width) / features;
    }
  }
  float check = 0;
  for (int i = 0; i < size; ++i) check += job->centre_squares[first + i];
  for (int k = 0; k < samples; ++k) {
    const float *other = others + (size_t)k * width;
    check += job->other_squares[group * samples + k] = dot(other, other, width) / features;
  }
  if (!isfinite(loss) || !isfinite(check)) atomic_store(&job->skipped[micro], 1);
  job->group_losses[group] = loss;
  job->group_weights[group] = weight;
}

/* The slopes of the words at positions start to end, by the centres around each. */
static void learn_around(Job *job, int micro, int start, int end) {
  int width = job->width, span = 2 * job->window + 1;
  const float *centres = job->architecture == SKIP_GRAM ? job->queries : job->slopes;
  float check = 0;
  for (int at = start; at < end; ++at) {
    int first = at < span ? 0 : at - span + 1;
    int last = at < job->micro_batch ? at : job->micro_batch - 1;
    float *slope = job->around + (size_t)at * width;
    product(1, last - first + 1, width, job->pairs + (size_t)first * span + at - first, 0,
            span - 1, centres + (size_t)first * width, width, slope, 0, false);
    check += job->around_squares[at] = dot(slope, slope, width) / job->features;
  }
  if (!isfinite(check)) atomic_store(&job->skipped[micro], 1);
}

/* Some rows of a table with their slopes and the mean squares of these. */
typedef struct {
  int table, count;
  const int32_t *rows;
  const float *slopes, *squares;
} Reads;

/* AdaGrad of those rows that are a thread's: all squares first. */
static void update(const Job *job, int micro, int thread, int threads) {
  int words = job->micro_batch, around = words + 2 * job->window;
  int others = job->groups * job->samples, skip_gram = job->architecture == SKIP_GRAM;
  const int32_t *text = job->words + (size_t)micro * words;
  const Reads reads[] = {
      {!skip_gram, words, text + job->window, skip_gram ? job->slopes : job->queries,
       job->centre_squares},
      {skip_gram, around, text, job->around, job->around_squares},
      {1, others, job->noise + (size_t)micro * others, job->others, job->other_squares},
  };
  for (int part = 0; part < 3; ++part)
    for (int i = 0; i < reads[part].count; ++i) {
      int32_t row = reads[part].rows[i];
      if (row % threads == thread) job->sums[reads[part].table][row] += reads[part].squares[i];
    }
  for (int part = 0; part < 3; ++part)
    for (int i = 0; i < reads[part].count; ++i) {
      int32_t row = reads[part].rows[i];
      if (row % threads != thread || reads[part].squares[i] == 0) continue;
      int table = reads[part].table;
      float by = job->rate / sqrtf(job->sums[table][row] + 1e-10f);
      float *numbers = job->tables[table] + (size_t)row * job->features;
      const float *slope = reads[part].slopes + (size_t)i * job->width;
      for (int d = 0; d < job->features; ++d) numbers[d] -= by * slope[d];
    }
}

static float *reserve(char **room, size_t numbers) {
  float *start = (float *)*room;
  *room += (4 * numbers + 63) / 64 * 64;
  return start;
}

typedef struct {
  Job *job;
  Room room;
  int thread;
} Worker;

static void *work(void *argument) {
  Worker *worker = argument;
  Job *job = worker->job;
  int thread = worker->thread;
  wait_for_turn(&job->barrier, 0); /* Until all threads are there. */
  int threads = job->barrier.threads, positions = job->micro_batch + 2 * job->window;
  for (int micro = 0; micro < job->count; ++micro) {
    for (int group; (group = atomic_fetch_add(&job->next, 1) - micro * job->groups - micro * threads) < job->groups;)
      learn_group(job, &worker->room, micro, group);
    wait_for_all(&job->barrier);
    learn_around(job, micro, (int)((int64_t)positions * thread / threads),
                 (int)((int64_t)positions * (thread + 1) / threads));
    wait_for_all(&job->barrier);
    bool bad = atomic_load(&job->skipped[micro]);
    if (!bad) update(job, micro, thread, threads);
    if (!thread) {
      double loss = 0, weight = 0;
      for (int group = 0; group < job->groups; ++group) {
        loss += job->group_losses[group];
        weight += job->group_weights[group];
      }
      job->losses[micro] = bad ? 0 : loss;
      job->weights[micro] = bad ? 0 : weight;
    }
    wait_for_all(&job->barrier);
  }
  return NULL;
}

/* Runs a job with so many threads, or as many as there can be. Returns false without memory. */
static bool run(Job *job, int threads) {
  size_t lines = 64 * 16;
  int positions = job->micro_batch + 2 * job->window, samples = job->samples;
  int padded = (samples + LANES - 1) / LANES * LANES;
  job->width = (job->features + LANES - 1) / LANES * LANES;
  job->group = job->micro_batch / job->groups;
  size_t width = job->width, noise = (size_t)job->groups * samples;
  size_t own = (job->group + 2 * job->window + samples) * width + job->features * padded +
               QUERIES * (padded + width) + 2 * job->window + LANES;
  size_t shared = (2 * job->micro_batch + positions + noise) * width +
                  (size_t)job->micro_batch * (2 * job->window + 2) + positions + noise +
                  4 * job->groups;
  char *memory = aligned_alloc(64, (4 * (shared + threads * own) + lines * (1 + threads)) / 64 * 64);
  if (!memory) return false;
  char *room = memory;
  job->queries = reserve(&room, job->micro_batch * width);
  job->slopes = reserve(&room, job->micro_batch * width);
  job->around = reserve(&room, positions * width);
  job->others = reserve(&room, noise * width);
  job->pairs = reserve(&room, (size_t)job->micro_batch * (2 * job->window + 1));
  job->centre_squares = reserve(&room, job->micro_batch);
  job->around_squares = reserve(&room, positions);
  job->other_squares = reserve(&room, noise);
  job->group_losses = (double *)reserve(&room, 2 * job->groups);
  job->group_weights = (double *)reserve(&room, 2 * job->groups);
  for (int micro = 0; micro < job->count; ++micro) atomic_init(&job->skipped[micro], 0);
  /* What lies behind the numbers of a row is 0 and stays so. */
  memset(job->queries, 0, 4 * job->micro_batch * width);
  memset(job->slopes, 0, 4 * job->micro_batch * width);

  Worker workers[MOST_THREADS];
  pthread_t others[MOST_THREADS];
  for (int thread = 0; thread < threads; ++thread) {
    Room *mine = &workers[thread].room;
    workers[thread].job = job;
    workers[thread].thread = thread;
    mine->context = reserve(&room, (job->group + 2 * job->window) * width);
    mine->noise = reserve(&room, samples * width);
    mine->by_sample = reserve(&room, (size_t)job->features * padded);
    mine->scores = reserve(&room, QUERIES * padded);
    mine->targets = reserve(&room, QUERIES * width);
    memset(mine->targets, 0, 4 * QUERIES * width);
    mine->near = reserve(&room, 2 * job->window + LANES);
    memset(mine->context, 0, 4 * (job->group + 2 * job->window) * width);
    memset(mine->noise, 0, 4 * samples * width);
    memset(mine->by_sample, 0, 4 * (size_t)job->features * padded);
  }
  int started = 1;
  while (started < threads && !pthread_create(&others[started], NULL, work, &workers[started]))
    ++started;
  job->barrier.threads = started;
  turn(&job->barrier);
  work(&workers[0]);
  for (int thread = 1; thread < started; ++thread) pthread_join(others[thread], NULL);
  free(memory);
  return true;
}

static const void *attribute(const XLA_FFI_CallFrame *frame, const char *name) {
  for (int64_t i = 0; i < frame->attrs.size; ++i) {
    const XLA_FFI_ByteSpan *span = frame->attrs.names[i];
    if (span->len == strlen(name) && !memcmp(span->ptr, name, span->len))
      return ((const XLA_FFI_Scalar *)frame->attrs.attrs[i])->value;
  }
  abort(); /* kernel.py and this file disagree. */
}

static int integer(const XLA_FFI_CallFrame *frame, const char *name) {
  return (int)*(const int64_t *)attribute(frame, name);
}

/* The handler. Operands: input and output table, their sums, words, sentences, reach, noise, rate.
   Results: the four tables, which are the operands; loss, weight and skipped of micro-batches. */
XLA_FFI_Error *word2vec(XLA_FFI_CallFrame *frame) {
  if (frame->extension_start && frame->extension_start->type == XLA_FFI_Extension_Metadata) {
    XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)frame->extension_start)->metadata;
    metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    metadata->api_version.minor_version = XLA_FFI_API_MINOR;
    metadata->traits = 0;
    return NULL;
  }
  XLA_FFI_Buffer **operands = (XLA_FFI_Buffer **)frame->args.args;
  XLA_FFI_Buffer **results = (XLA_FFI_Buffer **)frame->rets.rets;
  Job job = {
      .tables = {results[0]->data, results[1]->data},
      .sums = {results[2]->data, results[3]->data},
      .words = operands[4]->data,
      .sentences = operands[5]->data,
      .reach = operands[6]->data,
      .noise = operands[7]->data,
      .rate = *(const float *)operands[8]->data,
      .share = *(const float *)attribute(frame, "share"),
      .architecture = integer(frame, "architecture"),
      .features = (int)results[0]->dims[1],
      .micro_batch = integer(frame, "micro_batch"),
      .window = integer(frame, "window"),
      .groups = integer(frame, "groups"),
      .count = (int)results[4]->dims[0],
      .losses = results[4]->data,
      .weights = results[5]->data,
      .skipped = results[6]->data,
      .barrier = {.mutex = PTHREAD_MUTEX_INITIALIZER, .turned = PTHREAD_COND_INITIALIZER},
  };
  job.samples = (int)(operands[7]->dims[0] / job.count / job.groups);
  int threads = integer(frame, "threads");
  if (threads > job.groups) threads = job.groups;
  if (threads > MOST_THREADS) threads = MOST_THREADS;
  if (run(&job, threads)) return NULL;
  XLA_FFI_Error_Create_Args error = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL,
                                     "no memory for a step of word2vec",
                                     XLA_FFI_Error_Code_RESOURCE_EXHAUSTED};
  return frame->api->XLA_FFI_Error_Create(&error);
}
